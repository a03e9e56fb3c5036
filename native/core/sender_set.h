// From whom a client received packets, so that it can be told when one of them leaves. Keys stand as their 64-bit
// seeded hashes.
#pragma once

#include <cstdint>
#include <memory>

#include "hyperloglog.h"

namespace derplane {

class SenderSet {
 public:
  // Beyond this many senders a client hears of every key that leaves.
  static constexpr uint32_t kMaxSenders = 4096;

  // Called for every delivered packet: usually the sender is the same as before.
  void note(uint64_t sender) {
    if (sender != last_) insert(sender);
  }
  bool contains(uint64_t sender) const;
  // True when the sender was known; it is forgotten. With more than kMaxSenders everyone counts as known.
  bool remove(uint64_t sender);
  // Senders known; exact up to kMaxSenders, beyond that an estimate of how many there ever were.
  uint64_t size() const { return many_ == nullptr ? count_ : many_->estimate(); }
  bool empty() const { return count_ == 0; }

 private:
  void insert(uint64_t sender);
  void place(uint64_t sender);
  uint32_t find(uint64_t sender) const;

  uint64_t last_ = 0;  // most recent sender; always also in the table, once there are two senders
  uint32_t count_ = 0;
  uint32_t capacity_ = 0;              // a power of two, at least twice the count
  std::unique_ptr<HyperLogLog> many_;  // once there are more than kMaxSenders, instead of the table
  std::unique_ptr<uint64_t[]> table_;  // linear probing, 0 = free; a hash of 0 is kept as 1
};

}  // namespace derplane
