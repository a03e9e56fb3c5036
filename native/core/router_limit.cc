// The receive limit of clients, and the end of all of them.
#include <algorithm>
#include <cstdio>

#include "router.h"

namespace derplane {
namespace {

// Every frame costs its length, but at most this: the largest packet with its key.
constexpr uint32_t kMaxCharge = kKeySize + kMaxPacketSize;
static_assert(kMaxCharge == 65'568);

// A client gets a notice when its limit slows it down, at most once a minute, and one after this time without a delay.
constexpr uint64_t kSlowedForMs = 10'000;
constexpr uint64_t kTellSlowedEveryMs = 60'000;
constexpr uint32_t kMaxHealthText = 128;

}  // namespace

void Router::setRateLimit(uint64_t bytes_per_second, uint64_t burst) {
  rate_bytes_per_second_ = bytes_per_second;
  rate_burst_ = std::max<uint64_t>(burst, kMaxCharge);
  ++rate_epoch_;
}

// The lower of the relay's limit and the client's own. With its own it may send a second's worth at once, as long as
// the relay's burst allows that.
Router::Limit Router::limitOf(const Client& client) const {
  const uint64_t own = client.receive_rate;
  if (own == 0 || (rate_bytes_per_second_ != 0 && rate_bytes_per_second_ <= own)) {
    return {rate_bytes_per_second_, rate_burst_};
  }
  const uint64_t burst = std::max<uint64_t>(own, kMaxCharge);
  return {own, rate_bytes_per_second_ == 0 ? burst : std::min(burst, rate_burst_)};
}

// Charges a frame whose header was read. A bucket may go below zero once: the frame is paid, and waits until the debt
// is.
bool Router::mayReceive(Client& client, uint32_t length) {
  const Limit limit = limitOf(client);
  if (client.receive_epoch != rate_epoch_) {
    client.receive_epoch = rate_epoch_;
    client.receive_tokens = static_cast<double>(limit.burst);
    client.receive_filled_ms = now_ms_;
  }
  const auto rate = static_cast<double>(limit.bytes_per_second) / 1000;  // a millisecond
  const auto passed = static_cast<double>(now_ms_ - client.receive_filled_ms);
  client.receive_filled_ms = now_ms_;
  client.receive_tokens = std::min(static_cast<double>(limit.burst), client.receive_tokens + passed * rate);
  client.receive_tokens -= std::min(length, kMaxCharge);
  if (client.receive_tokens >= 0) return true;
  client.throttled_until_ms = now_ms_ + static_cast<uint64_t>(-client.receive_tokens / rate) + 1;
  counters_.add(Counter::rate_limit_per_client_waited);
  counters_.label(client.label, LabelCounter::limit_waited);
  tellSlowed(client, limit.bytes_per_second);
  return false;
}

void Router::tellSlowed(Client& client, uint64_t bytes_per_second) {
  client.slowed_ms = now_ms_;
  if (client.slowed) {
    slowed_.remove(client);
  } else if (client.told_slow_ms != 0 && now_ms_ - client.told_slow_ms < kTellSlowedEveryMs) {
    return;
  } else {
    client.slowed = true;
    client.told_slow_ms = now_ms_;
    uint8_t frame[kFrameHeaderSize + kMaxHealthText];
    auto* text = reinterpret_cast<char*>(frame + kFrameHeaderSize);
    const int size =
        std::snprintf(text, kMaxHealthText,
                      "This relay slows your traffic down: you send more than its limit of %llu bytes per second.",
                      static_cast<unsigned long long>(bytes_per_second));
    putFrameHeader(frame, FrameType::kHealth, static_cast<uint32_t>(size));
    sendControl(client, frame, kFrameHeaderSize + static_cast<uint32_t>(size));
  }
  slowed_.pushBack(client);
}

void Router::forgetSlowed(Client& client) {
  if (!client.slowed) return;
  client.slowed = false;
  slowed_.remove(client);
}

void Router::tellNoLongerSlowed() {
  for (Client* client = slowed_.front(); client != nullptr; client = slowed_.front()) {
    if (now_ms_ - client->slowed_ms < kSlowedForMs) return;
    if (!roomForRead(0)) return;  // at the next tick
    forgetSlowed(*client);
    uint8_t frame[kFrameHeaderSize];
    putFrameHeader(frame, FrameType::kHealth, 0);
    sendControl(*client, frame, sizeof frame);
  }
}

bool Router::announceRestart(uint32_t from, uint32_t count, uint32_t reconnect_ms, uint32_t try_ms) {
  const size_t stop = std::min<size_t>(slots_.size(), size_t{from} + count);
  for (size_t slot = from; slot < stop; ++slot) {
    Client* client = slots_[slot];
    if (client == nullptr || client->link != nullptr) continue;
    uint8_t frame[kRestartingFrameSize];
    uint8_t* body = putFrameHeader(frame, FrameType::kRestarting, 8);
    storeBe32(body, reconnect_ms);
    storeBe32(body + 4, try_ms);
    sendControl(*client, frame, sizeof frame);
  }
  return stop < slots_.size();
}

void Router::closeShare(double share, CloseReason reason) {
  const auto stop = static_cast<size_t>(share * static_cast<double>(slots_.size()) + 0.5);
  for (size_t slot = 0; slot < std::min(stop, slots_.size()); ++slot) {
    if (slots_[slot] != nullptr) close(*slots_[slot], reason);
  }
}

}  // namespace derplane
