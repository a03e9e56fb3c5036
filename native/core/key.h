// Public keys and their seeded hash.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace derplane {

inline constexpr uint32_t kKeySize = 32;

struct Key {
  uint8_t bytes[kKeySize] = {};

  static Key from(const uint8_t* p) {
    Key key;
    std::memcpy(key.bytes, p, kKeySize);
    return key;
  }

  bool isZero() const {
    uint64_t words[4];
    std::memcpy(words, bytes, sizeof words);
    return (words[0] | words[1] | words[2] | words[3]) == 0;
  }

  friend bool operator==(const Key& a, const Key& b) { return std::memcmp(a.bytes, b.bytes, kKeySize) == 0; }
};

// Secret of the hash: strangers choose keys, so without it they could choose a shard or a table slot.
struct HashSeed {
  uint64_t k0 = 0;
  uint64_t k1 = 0;
};

// SipHash-1-3 of the 32 key bytes (J.-P. Aumasson and D. J. Bernstein, "SipHash: a fast short-input PRF").
uint64_t hashKey(const HashSeed& seed, const uint8_t* key);

// The high half of the hash chooses the shard and the low half the table slot, so the two are independent.
inline uint32_t shardOfHash(uint64_t hash, uint32_t shards) {
  return static_cast<uint32_t>(((hash >> 32) * shards) >> 32);
}

}  // namespace derplane
