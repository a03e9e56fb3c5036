// Our end of a connection to another relay of the region: we are the client there, and learn from it which keys it can
// reach.
#pragma once

#include <cstdint>
#include <cstring>
#include <unordered_set>

#include "key.h"

namespace derplane {

// Who takes packets for a key that is not connected here: a mesh link of some shard, or JavaScript.
struct Forwarder {
  static constexpr uint32_t kControlPlane = UINT32_MAX;  // as shard: JavaScript

  uint32_t shard = 0;
  uint32_t slot = 0;
  uint32_t generation = 0;

  friend bool operator==(const Forwarder&, const Forwarder&) = default;
};

// Keys are points of a curve, or what strangers make of them: only a seeded hash may place them.
struct KeyHasher {
  HashSeed seed;
  size_t operator()(const Key& key) const { return hashKey(seed, key.bytes); }
};

struct LinkState {
  explicit LinkState(const HashSeed& seed) : present(16, KeyHasher{seed}) {}

  // Keys that the other relay reported present: for each a forwarder is registered with the key's shard.
  std::unordered_set<Key, KeyHasher> present;
  uint64_t adopted_ms = 0;
  uint64_t heard_ms = 0;  // when the last frame came
  bool reported = false;  // the control plane knows how many keys it brought
};

}  // namespace derplane
