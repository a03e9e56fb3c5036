// How many answers a source prefix gets. The table has a fixed size: strangers choose their source addresses freely.
#pragma once

#include <cstdint>
#include <vector>

#include "../core/client.h"

namespace derplane {

class StunRateBound {
 public:
  // `per_second`: answers that one prefix (IPv4 /24, IPv6 /48) gets a second, and at once; 0: as many as it asks for.
  StunRateBound(uint32_t per_second, uint64_t seed);

  // Whether the source gets an answer now. `now_ms`: milliseconds of a clock that only rises; it may wrap.
  bool allow(const Address& source, uint32_t now_ms);

 private:
  struct Entry {
    uint64_t prefix = 0;  // 0: free
    float answers = 0;    // that the prefix may still get
    uint32_t at_ms = 0;   // when it asked last
  };
  // A prefix may stand in any entry of its set; the one that asked longest ago gives way. To lose its entry between two
  // of its requests, others must bring four prefixes of its set, and the seed hides which ones these are.
  static constexpr size_t kWays = 4;
  static constexpr size_t kSets = 4096;

  Entry& entryOf(uint64_t prefix, uint32_t now_ms);

  float per_second_;
  uint64_t seed_;
  std::vector<Entry> entries_;
};

}  // namespace derplane
