// How many handshakes may be in progress and how many bytes they may hold, over all threads of a relay. When that is
// used up, connections that stay silent are ended to make room for newcomers.
//
// The thread that uses a connection ends it: the budget only asks for that. Until it happened the connection counts as
// `ending`, and its place and bytes may be taken already.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "handshake_roster.h"

namespace derplane {

class Connection;

// What an ended connection made room for.
enum class Eviction : uint32_t {
  kHandshakes,      // the number of handshakes
  kHandshakeBytes,  // their bytes
  kSourceShare,     // the share of its source address
  kDescriptors,     // file descriptors of the process
  kCount,
};

class HandshakeBudget {
 public:
  struct Limits {
    int64_t max = 4096;
    size_t max_bytes = 256 << 20;
    uint32_t max_per_source = 256;
  };

  HandshakeBudget(const Limits& limits, const HashSeed& seed) : limits_(limits), roster_(seed, limits.max_per_source) {}

  // The control plane's thread. Whether a connection from there may come in; else it is counted as refused.
  bool admit(const Address& remote);
  // The process has no descriptors left: ends up to `count` silent connections.
  void freeDescriptors(int count);

  // Any thread from here.
  // Whether a connection may hold `more` bytes; else it is counted as refused, and has to end.
  bool reserve(size_t more);
  // The connection may be chosen to make room from now on. `spoke`: its client sent something already.
  void join(Connection& connection, bool spoke);
  // It may no longer be chosen.
  void leave(Connection& connection);
  // Its `remote` changed: it counts for that source now.
  void move(Connection& connection);
  // Ends a silent connection of a source that has its share; whether it has.
  bool makeRoomOf(const Address& remote);
  // It made progress.
  void step(Connection& connection);

  // A connection's beginning and end.
  void opened() { handshakes_.fetch_add(1, std::memory_order_relaxed); }
  void closed(size_t bytes) {
    handshakes_.fetch_sub(1, std::memory_order_relaxed);
    bytes_.fetch_sub(bytes, std::memory_order_relaxed);
  }
  // A connection whose thread was asked to end it; and its end.
  void ending(size_t bytes) {
    ending_.fetch_add(1, std::memory_order_relaxed);
    ending_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  }
  void ended(size_t bytes) {
    ending_.fetch_sub(1, std::memory_order_relaxed);
    ending_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
  }
  // A connection that sent nothing until its deadline.
  void countMute() { mute_.fetch_add(1, std::memory_order_relaxed); }

  // Figures: handshakes in progress and their bytes; since start connections refused because of the number and the
  // bytes, connections ended to make room, and connections that sent nothing.
  int64_t handshakes() const { return handshakes_.load(std::memory_order_relaxed); }
  size_t bytes() const { return bytes_.load(std::memory_order_relaxed); }
  uint64_t refused() const { return refused_.load(std::memory_order_relaxed); }
  uint64_t refusedBytes() const { return refused_bytes_.load(std::memory_order_relaxed); }
  uint64_t evicted(Eviction why) const { return evicted_[static_cast<uint32_t>(why)].load(std::memory_order_relaxed); }
  uint64_t mute() const { return mute_.load(std::memory_order_relaxed); }

 private:
  // Connections that their threads were asked to end and have not ended yet: with more, a thread is behind, and
  // newcomers are refused instead.
  static constexpr int64_t kMaxEnding = 1024;
  // Connections ended at most for the bytes of one: each frees a buffer of 4 KiB or more, and a TLS handshake needs 52.
  static constexpr int kMaxForBytes = 16;

  bool hasRoom() const {
    return handshakes_.load(std::memory_order_relaxed) - ending_.load(std::memory_order_relaxed) < limits_.max;
  }
  // Ends the connection that `choose` takes out of the roster; false when there is none.
  template <typename Choose>
  bool evict(Eviction why, Choose choose);

  const Limits limits_;
  std::atomic<int64_t> handshakes_{0};
  std::atomic<size_t> bytes_{0};
  std::atomic<int64_t> ending_{0};
  std::atomic<size_t> ending_bytes_{0};
  std::atomic<uint64_t> refused_{0};
  std::atomic<uint64_t> refused_bytes_{0};
  std::atomic<uint64_t> mute_{0};
  std::atomic<uint64_t> evicted_[static_cast<uint32_t>(Eviction::kCount)] = {};

  // Taken behind the connection table's mutex, never before it.
  std::mutex mutex_;
  HandshakeRoster roster_;
};

}  // namespace derplane
