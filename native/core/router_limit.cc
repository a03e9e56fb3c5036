// The receive limit of clients, and the end of all of them.
#include <algorithm>

#include "router.h"

namespace derplane {
namespace {

// Every frame costs its length, but at most this: the largest packet with its key.
constexpr uint32_t kMaxCharge = kKeySize + kMaxPacketSize;
static_assert(kMaxCharge == 65'568);

}  // namespace

void Router::setRateLimit(uint64_t bytes_per_second, uint64_t burst) {
  rate_bytes_per_second_ = bytes_per_second;
  rate_burst_ = std::max<uint64_t>(burst, kMaxCharge);
  ++rate_epoch_;
}

// Charges a frame whose header was read. A bucket may go below zero once: the frame is paid, and waits until the debt
// is.
bool Router::mayReceive(Client& client, uint32_t length) {
  if (client.receive_epoch != rate_epoch_) {
    client.receive_epoch = rate_epoch_;
    client.receive_tokens = static_cast<double>(rate_burst_);
    client.receive_filled_ms = now_ms_;
  }
  const auto rate = static_cast<double>(rate_bytes_per_second_) / 1000;  // a millisecond
  const auto passed = static_cast<double>(now_ms_ - client.receive_filled_ms);
  client.receive_filled_ms = now_ms_;
  client.receive_tokens = std::min(static_cast<double>(rate_burst_), client.receive_tokens + passed * rate);
  client.receive_tokens -= std::min(length, kMaxCharge);
  if (client.receive_tokens >= 0) return true;
  client.throttled_until_ms = now_ms_ + static_cast<uint64_t>(-client.receive_tokens / rate) + 1;
  counters_.add(Counter::rate_limit_per_client_waited);
  return false;
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
