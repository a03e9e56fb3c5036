// TCP round-trip times as derper counts them: each measurement in one bucket, and what cannot be measured once
// per connection.
#pragma once

#include <cstdint>

namespace derplane {

enum class RttBucket : uint32_t { ms10, ms20, ms50, ms100, ms150, ms250, ms500, inf, non_tcp, error, count };

inline constexpr uint32_t kRttBuckets = static_cast<uint32_t>(RttBucket::count);
inline constexpr const char* kRttBucketNames[kRttBuckets] = {"10ms",  "20ms",  "50ms", "100ms",   "150ms",
                                                             "250ms", "500ms", "inf",  "non-tcp", "error"};

constexpr RttBucket rttBucketOf(uint64_t microseconds) {
  constexpr uint32_t kUpperMs[] = {10, 20, 50, 100, 150, 250, 500};
  uint32_t i = 0;
  while (i < sizeof kUpperMs / sizeof kUpperMs[0] && microseconds > uint64_t{kUpperMs[i]} * 1000) ++i;
  return static_cast<RttBucket>(i);
}

}  // namespace derplane
