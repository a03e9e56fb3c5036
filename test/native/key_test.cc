#include "native/core/key.h"

#include <vector>

#include "check.h"

using namespace derplane;

namespace {

Key counting() {
  Key key;
  for (uint32_t i = 0; i < kKeySize; ++i) key.bytes[i] = static_cast<uint8_t>(i);
  return key;
}

Key filled(uint8_t byte) {
  Key key;
  std::memset(key.bytes, byte, kKeySize);
  return key;
}

Key randomKey(check::Random& random) {
  Key key;
  for (uint8_t& byte : key.bytes) byte = static_cast<uint8_t>(random.next());
  return key;
}

// Every count within `percent` of the mean.
void checkEven(const std::vector<uint32_t>& counts, uint32_t total, uint32_t percent) {
  const uint32_t mean = total / static_cast<uint32_t>(counts.size());
  for (const uint32_t n : counts) {
    CHECK(n > mean - mean * percent / 100);
    CHECK(n < mean + mean * percent / 100);
  }
}

}  // namespace

// From CPython 3.11, whose hash of bytes is SipHash-1-3: PYTHONHASHSEED=0 (an all-zero secret), 42 and 7 (secrets of
// its LCG).
TEST("the key hash is SipHash-1-3") {
  const HashSeed zero{0, 0};
  CHECK_EQ(hashKey(zero, counting().bytes), 0x31ef8061c910629bu);
  CHECK_EQ(hashKey(zero, filled(0).bytes), 0xb85bed2614339b3du);
  CHECK_EQ(hashKey(zero, filled(0xff).bytes), 0x0914d6b87f7d5adfu);
  const HashSeed seed42{0xdc504fd368cd90af, 0xb920bb9ffe99e9c1};
  CHECK_EQ(hashKey(seed42, counting().bytes), 0x26f2ecd47de50371u);
  CHECK_EQ(hashKey(seed42, filled(0xff).bytes), 0x00c0afb8d792b781u);
  const HashSeed seed7{0x12c874a1806f0e3d, 0x470a89d2f9d2784f};
  CHECK_EQ(hashKey(seed7, counting().bytes), 0xefb0a08e62aba998u);
}

TEST("the hash reads keys at any alignment") {
  const HashSeed seed{1, 2};
  const Key key = counting();
  uint8_t bytes[kKeySize + 8];
  for (uint32_t shift = 0; shift < 8; ++shift) {
    std::memcpy(bytes + shift, key.bytes, kKeySize);
    CHECK_EQ(hashKey(seed, bytes + shift), hashKey(seed, key.bytes));
  }
}

TEST("keys that a stranger chose to be alike spread evenly over shards and slots") {
  const HashSeed seed{0x0123456789abcdef, 0xfedcba9876543210};
  for (const uint32_t shards : {1u, 2u, 3u, 7u, 8u, 63u}) {
    std::vector<uint32_t> per_shard(shards);
    std::vector<uint32_t> per_slot(16);
    Key key;  // differs in its first bytes only
    for (uint32_t i = 0; i < 100'000; ++i) {
      std::memcpy(key.bytes, &i, sizeof i);
      const uint64_t hash = hashKey(seed, key.bytes);
      const uint32_t shard = shardOfHash(hash, shards);
      CHECK(shard < shards);
      ++per_shard[shard];
      ++per_slot[static_cast<uint32_t>(hash) & 15];
    }
    checkEven(per_shard, 100'000, 15);
    checkEven(per_slot, 100'000, 10);
  }
}

TEST("the slot of a key says nothing about its shard") {
  const HashSeed seed{3, 4};
  check::Random random(1);
  constexpr uint32_t kShards = 4;
  std::vector<uint32_t> cells(kShards * 8);
  for (uint32_t i = 0; i < 128'000; ++i) {
    const uint64_t hash = hashKey(seed, randomKey(random).bytes);
    ++cells[shardOfHash(hash, kShards) * 8 + (static_cast<uint32_t>(hash) & 7)];
  }
  checkEven(cells, 128'000, 10);
}

TEST("the shard comes from the high half of the hash alone, the first and the last included") {
  for (const uint32_t shards : {1u, 2u, 5u, 63u}) {
    CHECK_EQ(shardOfHash(0, shards), 0u);
    CHECK_EQ(shardOfHash(0xffffffff, shards), 0u);
    CHECK_EQ(shardOfHash(UINT64_MAX, shards), shards - 1);
    CHECK_EQ(shardOfHash(0xffffffff00000000, shards), shards - 1);
  }
}

TEST("another seed gives another hash") {
  const Key key = counting();
  CHECK(hashKey({0, 0}, key.bytes) != hashKey({1, 0}, key.bytes));
  CHECK(hashKey({0, 0}, key.bytes) != hashKey({0, 1}, key.bytes));
}

TEST("only the all-zero key is zero") {
  CHECK(Key{}.isZero());
  for (uint32_t i = 0; i < kKeySize; ++i) {
    Key key;
    key.bytes[i] = 0x80;
    CHECK(!key.isZero());
    CHECK(!(key == Key{}));
  }
}
