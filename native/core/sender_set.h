// The keys from which a client received packets, so that it hears when one of them leaves. Keys stand as their 64-bit
// seeded hashes. See Departures, which finds the receivers of a sender.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "hyperloglog.h"
#include "linked_list.h"

namespace derplane {

struct Client;

// A client with more senders than a SenderSet knows one by one. It hears of every key that leaves.
struct ManySenders {
  HyperLogLog ever;  // all that there ever were
  Client* client = nullptr;
  Links<ManySenders> links;  // in Departures
};

class SenderSet {
 public:
  static constexpr uint32_t kMaxSenders = 4096;

  // What stands for a sender of that hash: 0 marks a free place.
  static uint64_t nonZero(uint64_t hash) { return hash == 0 ? 1 : hash; }

  enum class Noted : uint8_t {
    kKnown,
    kNew,
    kTooMany,  // the sender was not noted: kMaxSenders are
  };

  // Usually a packet's sender is the same as before.
  bool isLatest(uint64_t sender) const { return sender == last_; }
  Noted note(uint64_t sender);
  // Whether the sender is known one by one.
  bool contains(uint64_t sender) const;
  // True when the sender was known one by one; it is forgotten.
  bool remove(uint64_t sender);
  // Instead of the senders known one by one from now on.
  void becomeMany(std::unique_ptr<ManySenders> many);
  ManySenders* many() const { return many_.get(); }
  // Senders known; exact up to kMaxSenders, beyond that an estimate of how many there ever were.
  uint64_t size() const { return many_ == nullptr ? count_ : many_->ever.estimate(); }

  // Of the table, 8 bytes each.
  uint32_t places() const { return capacity_; }

  template <typename Visit>
  void forEach(Visit visit) const {
    if (capacity_ == 0 && count_ > 0) visit(last_);
    for (uint32_t i = 0; i < capacity_; ++i) {
      if (table_[i] != 0) visit(table_[i]);
    }
  }

  // Visits the senders in up to `places` places from number `from` on; returns where to go on, or 0 after the last one.
  // Nothing may change between the calls.
  template <typename Visit>
  uint32_t forEachFrom(uint32_t from, size_t places, Visit visit) const {
    if (capacity_ == 0) {
      forEach(visit);
      return 0;
    }
    const uint32_t stop = from + static_cast<uint32_t>(std::min<size_t>(capacity_ - from, places));
    for (uint32_t i = from; i < stop; ++i) {
      if (table_[i] != 0) visit(table_[i]);
    }
    return stop == capacity_ ? 0 : stop;
  }

 private:
  void place(uint64_t sender);
  void resize(uint32_t capacity);
  uint32_t find(uint64_t sender) const;

  uint64_t last_ = 0;  // most recent sender; always also in the table, once there are two senders
  uint32_t count_ = 0;
  uint32_t capacity_ = 0;  // a power of two, at least twice the count; over the first table's, less than 8 times
  std::unique_ptr<ManySenders> many_;
  std::unique_ptr<uint64_t[]> table_;  // linear probing, 0 = free; a hash of 0 is kept as 1
};

}  // namespace derplane
