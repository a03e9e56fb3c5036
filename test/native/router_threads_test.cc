// Routers that wait for each other's rings, a thread each. Whoever misses a wake-up waits for ever, and all behind it:
// nothing moves any more. Only two threads can show that (wake_explorer_test.cc goes through their orders one by one).
#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "check.h"
#include "relay_model.h"
#include "threads.h"

using namespace derplane;
using frames::Bytes;
using model::Relay;
using model::Session;

namespace {

constexpr uint32_t kSenders = 4;
constexpr uint32_t kBatch = 16;
// Eight records fill the ring to its last byte, so that notices find no room either. Often full is what counts.
constexpr uint64_t kRingBytes = 64 << 10;
constexpr uint32_t kPacketSize = kRingBytes / 8 - sizeof(RingRecord) - kPacketFrameFixed;
// Keys that come and go in each turn: their notices wait for the ring beside the senders.
constexpr uint32_t kLeavers = 32;

bool isPacket(const Bytes& frame) { return frame[0] == static_cast<uint8_t>(FrameType::kRecvPacket); }

// Two shards. From each, senders send to keys of the other, more than the ring takes, while other keys leave.
class Load {
 public:
  // `packets`: how many each shard sends.
  explicit Load(uint64_t from_first, uint64_t from_second) : wanted_{from_first, from_second} {
    for (uint32_t shard = 0; shard < 2; ++shard) {
      for (uint32_t i = 0; i < kSenders; ++i) senders_[shard].push_back(&relay_.connect(relay_.keyOn(shard, i)));
      for (uint32_t i = 0; i < 2 * kLeavers; ++i) keys_[shard].push_back(relay_.keyOn(shard, kSenders + i));
    }
    relay_.settle();
    for (Session* session : relay_.sessions()) session->received();
  }

  void run() {
    std::thread second([this] { work(1); });
    work(0);
    second.join();
    CHECK(!stuck_);
    for (uint32_t shard = 0; shard < 2; ++shard) CHECK_EQ(arrived_[1 - shard].load(), wanted_[shard]);
    CHECK_EQ(relay_.violation(), "");
    CHECK(relay_.get(Counter::ring_full) > 0);
  }

 private:
  // The shard's thread.
  void work(uint32_t shard) {
    check::Random random(shard + 1);
    std::vector<Session*> leavers;
    uint64_t sent = 0, seen = 0;
    auto moved_at = std::chrono::steady_clock::now();
    while (!stuck_ && !isDone()) {
      const bool all_wait = sendMore(shard, sent);
      // Only those who wait are left in some turns: then the thread sleeps.
      if (sent < wanted_[shard] && !(all_wait && random.oneIn(8))) comeAndGo(shard, leavers);
      const bool busy = relay_.turn(shard);
      relay_.forgetClosed(shard);
      takeArrived(shard);
      if (!busy && !isDone() && !threads::sleepOn(relay_.slot(shard))) stuck_ = true;
      const uint64_t now = arrived_[0] + arrived_[1];
      const auto time = std::chrono::steady_clock::now();
      if (now != seen) moved_at = time;
      if (time - moved_at > std::chrono::milliseconds(threads::kLostWakeUpMs)) stuck_ = true;
      seen = now;
    }
    relay_.slot(1 - shard).wake();
  }

  bool isDone() const { return arrived_[1] >= wanted_[0] && arrived_[0] >= wanted_[1]; }

  // True when every sender waits for the ring.
  bool sendMore(uint32_t shard, uint64_t& sent) {
    bool all_wait = true;
    for (uint32_t i = 0; i < kSenders; ++i) {
      Session& sender = *senders_[shard][i];
      all_wait = all_wait && sender.client->blocked_on != kNotBlocked;
      if (sender.client->blocked_on != kNotBlocked || !sender.unread.empty()) continue;
      for (uint32_t n = 0; n < kBatch && sent < wanted_[shard]; ++n, ++sent) {
        relay_.send(sender, frames::sendPacket(senders_[1 - shard][i]->key, Bytes(kPacketSize, 0x33)));
      }
    }
    return all_wait;
  }

  void comeAndGo(uint32_t shard, std::vector<Session*>& leavers) {
    for (Session* session : leavers) relay_.disconnect(*session);
    leavers.clear();
    std::rotate(keys_[shard].begin(), keys_[shard].begin() + kLeavers, keys_[shard].end());
    for (uint32_t i = 0; i < kLeavers; ++i) leavers.push_back(&relay_.connect(keys_[shard][i]));
  }

  void takeArrived(uint32_t shard) {
    for (Session* session : senders_[shard]) {
      const std::vector<Bytes> got = session->received();
      arrived_[shard] += static_cast<uint64_t>(std::count_if(got.begin(), got.end(), isPacket));
    }
  }

  Relay relay_{{.shards = 2, .ring_bytes = kRingBytes}};
  const uint64_t wanted_[2];
  std::vector<Session*> senders_[2];
  std::vector<Key> keys_[2];
  std::atomic<uint64_t> arrived_[2] = {};
  std::atomic<bool> stuck_{false};
};

}  // namespace

TEST("senders that wait for a ring, and keys that leave meanwhile, are all woken") { Load(200'000, 0).run(); }

TEST("two shards that fill each other's rings wake each other") { Load(10'000, 10'000).run(); }
