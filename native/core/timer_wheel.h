// Coarse timers of the clients of one shard: a wheel of buckets, each an intrusive list. No memory per timer, O(1) to
// set and cancel.
#pragma once

#include <cstdint>

#include "client.h"

namespace derplane {

class TimerWheel {
 public:
  static constexpr uint32_t kBuckets = 128;
  static constexpr uint64_t kMinTickMs = 5;

  // Intervals of up to `longest_ms` fit; a tick is as coarse as that allows.
  explicit TimerWheel(uint64_t longest_ms) : tick_ms_(longest_ms / (kBuckets - 2) + kMinTickMs) {}

  uint64_t tickMs() const { return tick_ms_; }
  uint32_t count() const { return count_; }

  // Fires at the first tick that is not before `at_ms`. Replaces an earlier setting.
  void set(Client& client, uint64_t now_ms, uint64_t at_ms) {
    cancel(client);
    if (count_ == 0 && !advancing_) now_tick_ = now_ms / tick_ms_;  // an empty wheel is not advanced
    uint64_t tick = (at_ms + tick_ms_ - 1) / tick_ms_;
    if (tick <= now_tick_) tick = now_tick_ + 1;
    if (tick - now_tick_ >= kBuckets) tick = now_tick_ + kBuckets - 1;
    const auto bucket = static_cast<uint32_t>(tick % kBuckets);
    client.timer_bucket = bucket;
    client.timer_prev = nullptr;
    client.timer_next = buckets_[bucket];
    if (client.timer_next != nullptr) client.timer_next->timer_prev = &client;
    buckets_[bucket] = &client;
    ++count_;
  }

  void cancel(Client& client) {
    if (client.timer_bucket == UINT32_MAX) return;
    if (client.timer_prev != nullptr) {
      client.timer_prev->timer_next = client.timer_next;
    } else {
      buckets_[client.timer_bucket] = client.timer_next;
    }
    if (client.timer_next != nullptr) client.timer_next->timer_prev = client.timer_prev;
    client.timer_bucket = UINT32_MAX;
    --count_;
  }

  // Moves the wheel to `now_ms`; what is due is cancelled, then given to `fire`, which may set it again.
  template <typename Fire>
  void advance(uint64_t now_ms, Fire fire) {
    const uint64_t target = now_ms / tick_ms_;
    // After a sleep of more than a revolution everything is due.
    if (target > now_tick_ + kBuckets) now_tick_ = target - kBuckets;
    advancing_ = true;
    while (now_tick_ < target) {
      ++now_tick_;
      Client*& bucket = buckets_[now_tick_ % kBuckets];
      while (bucket != nullptr) {
        Client& client = *bucket;
        cancel(client);
        fire(client);
      }
    }
    advancing_ = false;
  }

 private:
  Client* buckets_[kBuckets] = {};
  uint64_t tick_ms_;
  uint64_t now_tick_ = 0;
  uint32_t count_ = 0;
  bool advancing_ = false;
};

}  // namespace derplane
