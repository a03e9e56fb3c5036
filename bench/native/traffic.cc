#include "traffic.h"

#include <sys/prctl.h>

#include <algorithm>
#include <cstring>

#include "process_stats.h"

namespace derplane_load {
namespace {

// A packet without a sign of it for this long is lost; far above any queue's time in the relay.
constexpr int64_t kStallNanos = 1'000'000'000;
constexpr int64_t kSweepNanos = 250'000'000;
constexpr int64_t kMaxWait = 50'000'000;
// An open loop that is further behind its schedule than this gives the difference up.
constexpr double kMaxBehindSeconds = 0.05;

uint32_t Millis(int64_t nanos) { return static_cast<uint32_t>(nanos / 1'000'000); }

}  // namespace

Traffic::Traffic(Fleet& fleet, const TrafficConfig& config)
    : fleet_(fleet), config_(config), stride_(kHeaderBytes + kKeyBytes + config.packet_bytes) {
  senders_.reserve(fleet.size());
  for (const ClientConfig& client : fleet.config().clients) {
    senders_.push_back(Sender{.first_slot = static_cast<uint32_t>(slots_.size()),
                              .slots = static_cast<uint32_t>(client.targets.size()),
                              .outstanding = 0,
                              .due = 0,
                              .turn = 0,
                              .touched = false});
    for (const uint32_t target : client.targets) slots_.push_back(Slot{target, 0, 0, 0, 0});
  }
  touched_.reserve(fleet.size());
  output_.resize(stride_ * kFramesPerSend);
  for (size_t i = 0; i < output_.size(); ++i) output_[i] = static_cast<uint8_t>(i * 131);
}

Error Traffic::Run(TrafficResult& result) {
  result_ = &result;
  // Open loops sleep for microseconds; the default slack of 50 us would be most of what they measure.
  prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
  open_since_ = NowNanos();
  for (uint32_t index = 0; index < senders_.size(); ++index) Touch(index);
  FlushTouched();
  if (Error error = RunFor(config_.warmup); !error.empty()) return error;

  const uint64_t lost_clients = result.disconnected;
  result = TrafficResult();
  result.disconnected = lost_clients;
  const pid_t relay = fleet_.config().relay_pid;
  const int64_t start = NowNanos();
  const int64_t relay_cpu = CpuNanos(relay);
  const int64_t load_cpu = ThreadCpuNanos();
  if (Error error = RunFor(config_.duration); !error.empty()) return error;
  const int64_t relay_cpu_end = CpuNanos(relay);
  result.duration = NowNanos() - start;
  result.load_cpu = ThreadCpuNanos() - load_cpu;
  result.relay_resident = ResidentBytes(relay);
  if (relay_cpu < 0 || relay_cpu_end < 0) return "the relay (pid " + std::to_string(relay) + ") is gone";
  result.relay_cpu = relay_cpu_end - relay_cpu;
  return {};
}

Error Traffic::RunFor(int64_t duration) {
  const int64_t end = NowNanos() + duration;
  for (int64_t now = NowNanos(); now < end; now = NowNanos()) {
    if (now >= next_sweep_) {
      next_sweep_ = now + kSweepNanos;
      WriteOffStalled();
    }
    int64_t wait = std::min(kMaxWait, end - now);
    if (config_.rate > 0) {
      MarkDue(now);
      FlushTouched();
      wait = std::min(wait, UntilNextDue(NowNanos()));
    }
    if (Error error = Step(wait); !error.empty()) return error;
  }
  return {};
}

Error Traffic::Step(int64_t timeout) {
  Error error = fleet_.Poll(timeout, [this](uint32_t index, uint32_t events) { OnEvent(index, events); });
  if (config_.rate == 0) FlushTouched();
  return error;
}

void Traffic::OnEvent(uint32_t index, uint32_t events) {
  Client& client = fleet_.client(index);
  if (client.state == Client::State::kClosed) return;
  if ((events & EPOLLOUT) != 0) {
    if (!fleet_.WritePending(index)) return Disconnect(index);
    Touch(index);
  }
  if ((events & ~uint32_t{EPOLLOUT}) == 0) return;
  received_at_ = NowNanos();
  const bool alive = fleet_.Read(index, [&](uint8_t type, const uint8_t* body, uint32_t length) {
    if (type == kRecvPacket) OnPacket(index, body, length);
    return true;
  });
  if (!alive) Disconnect(index);
}

void Traffic::OnPacket(uint32_t receiver, const uint8_t* body, uint32_t length) {
  TrafficResult& result = *result_;
  Stamp stamp;
  uint32_t check;
  if (length != kKeyBytes + config_.packet_bytes) return void(++result.corrupted);
  memcpy(&stamp, body + kKeyBytes, sizeof stamp);
  memcpy(&check, body + length - kCheckBytes, kCheckBytes);
  if (stamp.magic != kMagic || stamp.sender >= senders_.size() || stamp.slot >= senders_[stamp.sender].slots ||
      check != CheckOf(stamp)) {
    return void(++result.corrupted);
  }
  Sender& sender = senders_[stamp.sender];
  Slot& slot = slots_[sender.first_slot + stamp.slot];
  if (slot.destination != receiver) return void(++result.misdelivered);
  if (memcmp(body, fleet_.config().clients[stamp.sender].key.data(), kKeyBytes) != 0) ++result.wrong_source;
  if (stamp.sequence < slot.expected) {
    ++(stamp.sequence < slot.written_off ? result.late : result.misordered);
    return;
  }
  const uint32_t lost = stamp.sequence - slot.expected;
  result.lost += lost;
  slot.expected = stamp.sequence + 1;
  sender.outstanding -= lost + 1;
  ++result.delivered;
  result.latency.Record(received_at_ - stamp.sent_at);
  Touch(stamp.sender);
}

void Traffic::Touch(uint32_t index) {
  Sender& sender = senders_[index];
  if (sender.touched) return;
  sender.touched = true;
  touched_.push_back(index);
}

void Traffic::FlushTouched() {
  for (const uint32_t index : touched_) {
    senders_[index].touched = false;
    Flush(index);
  }
  touched_.clear();
}

uint32_t Traffic::FramesWanted(const Sender& sender) const {
  if (sender.slots == 0) return 0;
  return config_.rate > 0 ? sender.due : config_.window - sender.outstanding;
}

void Traffic::Flush(uint32_t index) {
  Client& client = fleet_.client(index);
  Sender& sender = senders_[index];
  while (client.state == Client::State::kReady && client.pending.empty()) {
    const uint32_t count = std::min(FramesWanted(sender), kFramesPerSend);
    if (count == 0) return;
    const int64_t now = NowNanos();
    for (uint32_t i = 0; i < count; ++i) Compose(index, sender, output_.data() + i * stride_, now);
    if (!fleet_.Write(index, output_.data(), count * stride_, stride_)) return Disconnect(index);
  }
  result_->blocked += sender.due;
  sender.turn += sender.due;
  sender.due = 0;
}

void Traffic::Compose(uint32_t index, Sender& sender, uint8_t* frame, int64_t now) {
  const uint32_t pick = sender.slots == 1 ? 0 : Random(sender.slots);
  Slot& slot = slots_[sender.first_slot + pick];
  Stamp stamp{kMagic, index, pick, slot.sent++, now};
  slot.sent_at = Millis(now);
  if (config_.rate > 0) {
    // The time at which it should have left, so that a generator that waited does not flatter the relay.
    const double place = static_cast<double>(sender.turn++ * senders_.size() + index);
    stamp.sent_at = open_since_ + static_cast<int64_t>(place * 1e9 / config_.rate);
    --sender.due;
  }
  ++sender.outstanding;
  ++result_->sent;
  WriteHeader(frame, kSendPacket, static_cast<uint32_t>(kKeyBytes) + config_.packet_bytes);
  memcpy(frame + kHeaderBytes, fleet_.config().clients[slot.destination].key.data(), kKeyBytes);
  memcpy(frame + kHeaderBytes + kKeyBytes, &stamp, sizeof stamp);
  const uint32_t check = CheckOf(stamp);
  memcpy(frame + stride_ - kCheckBytes, &check, kCheckBytes);
}

// Senders take turns, so packet number k of the whole schedule is due at k / rate.
void Traffic::MarkDue(int64_t now) {
  const double schedule = static_cast<double>(now - open_since_) * config_.rate / 1e9;
  const double earliest = schedule - config_.rate * kMaxBehindSeconds;
  while (static_cast<double>(issued_) < schedule) {
    const auto index = static_cast<uint32_t>(issued_ % senders_.size());
    if (static_cast<double>(issued_) < earliest) {
      ++senders_[index].turn;
      ++result_->behind;
    } else {
      ++senders_[index].due;
      Touch(index);
    }
    ++issued_;
  }
}

int64_t Traffic::UntilNextDue(int64_t now) const {
  const auto due = open_since_ + static_cast<int64_t>(static_cast<double>(issued_) * 1e9 / config_.rate);
  return std::max<int64_t>(0, due - now);
}

void Traffic::WriteOffStalled() {
  const uint32_t now = Millis(NowNanos());
  for (uint32_t index = 0; index < senders_.size(); ++index) {
    Sender& sender = senders_[index];
    // Output that waits in this process is not lost.
    if (!fleet_.client(index).pending.empty()) continue;
    for (uint32_t i = sender.first_slot; i < sender.first_slot + sender.slots; ++i) {
      Slot& slot = slots_[i];
      if (slot.sent == slot.expected || now - slot.sent_at < Millis(kStallNanos)) continue;
      const uint32_t lost = slot.sent - slot.expected;
      result_->lost += lost;
      sender.outstanding -= lost;
      slot.expected = slot.written_off = slot.sent;
      Touch(index);
    }
  }
  if (config_.rate == 0) FlushTouched();
}

void Traffic::Disconnect(uint32_t index) {
  fleet_.Close(fleet_.client(index));
  ++result_->disconnected;
}

uint32_t Traffic::Random(uint32_t below) {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return static_cast<uint32_t>((random_ >> 32) * below >> 32);
}

}  // namespace derplane_load
