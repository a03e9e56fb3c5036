// Our end of a connection to another relay of the region: we are the client there, and learn from it which keys it can
// reach.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "key.h"
#include "step_table.h"

namespace derplane {

// Who takes packets for a key that is not connected here: a mesh link of some shard, or JavaScript.
struct Forwarder {
  static constexpr uint32_t kControlPlane = UINT32_MAX;  // as shard: JavaScript

  uint32_t shard = 0;
  uint32_t slot = 0;
  uint32_t generation = 0;

  friend bool operator==(const Forwarder&, const Forwarder&) = default;
};

// Who forwards to one key, in the order of registration: the first is used. Mostly there is one, which needs no memory
// of its own.
class Forwarders {
 public:
  bool empty() const { return count_ == 0; }
  size_t size() const { return count_; }
  const Forwarder& front() const { return first_; }

  // False when it is there already.
  bool add(const Forwarder& forwarder) {
    if (contains(forwarder)) return false;
    if (count_++ == 0) {
      first_ = forwarder;
      return true;
    }
    if (others_ == nullptr) others_ = std::make_unique<std::vector<Forwarder>>();
    others_->push_back(forwarder);
    return true;
  }

  // False when it is not there.
  bool remove(const Forwarder& forwarder) {
    if (!contains(forwarder)) return false;
    --count_;
    if (count_ == 0) return true;
    if (forwarder == first_) {
      first_ = others_->front();
      others_->erase(others_->begin());
    } else {
      std::erase(*others_, forwarder);
    }
    if (count_ == 1) others_.reset();
    return true;
  }

 private:
  bool contains(const Forwarder& forwarder) const {
    if (count_ > 0 && first_ == forwarder) return true;
    return count_ > 1 && std::find(others_->begin(), others_->end(), forwarder) != others_->end();
  }

  Forwarder first_;
  uint32_t count_ = 0;
  std::unique_ptr<std::vector<Forwarder>> others_;
};

// A set of keys. Keys are points of a curve, or what strangers make of them: only a seeded hash may place them. The
// zero key, which no client can have, is never in it.
class KeySet {
 public:
  explicit KeySet(const HashSeed& seed) : seed_(seed), table_(Traits{seed}) {}

  size_t size() const { return table_.size(); }
  // False when it is there already.
  bool insert(const Key& key) {
    const uint64_t hash = hashKey(seed_, key.bytes);
    if (key.isZero() || find(hash, key) != nullptr) return false;
    table_.insert(hash, key);
    return true;
  }
  void erase(const Key& key) {
    if (Key* entry = find(hashKey(seed_, key.bytes), key)) table_.erase(entry);
  }
  // See StepTable::drainFrom.
  template <typename Visit>
  size_t drainFrom(size_t from, size_t places, Visit visit) {
    return table_.drainFrom(from, places, visit);
  }

 private:
  struct Traits {
    using Entry = Key;
    static constexpr size_t kMaxLoadQuarters = 3;
    HashSeed seed;
    bool isEmpty(const Key& key) const { return key.isZero(); }
    uint64_t hashOf(const Key& key) const { return hashKey(seed, key.bytes); }
  };

  Key* find(uint64_t hash, const Key& key) const {
    return key.isZero() ? nullptr : table_.find(hash, [&](const Key& entry) { return entry == key; });
  }

  HashSeed seed_;
  StepTable<Traits> table_;
};

struct LinkState {
  explicit LinkState(const HashSeed& seed) : present(seed) {}

  // Keys that the other relay reported present: for each a forwarder is registered with the key's shard.
  KeySet present;
  size_t keys_at_end = 0;  // how many they were when the link ended
  uint64_t adopted_ms = 0;
  uint64_t heard_ms = 0;  // when the last frame came
  bool reported = false;  // the control plane knows how many keys it brought
};

}  // namespace derplane
