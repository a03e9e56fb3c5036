// Latency histogram with logarithmic buckets: 128 per power of two, so a value is known to 0.8%.
//
//   bucket(v) = v                                  for v < 128
//             = (e + 1) * 128 + (v >> e) - 128     else, e = bit_width(v) - 8
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace derplane_load {

class Histogram {
 public:
  void Record(int64_t nanos) {
    const uint64_t value = nanos < 0 ? 0 : static_cast<uint64_t>(nanos);
    ++counts_[BucketOf(value)];
    ++total_;
    if (value > max_) max_ = value;
  }

  void Reset() { *this = Histogram(); }

  uint64_t total() const { return total_; }
  uint64_t max() const { return max_; }

  // Middle of the bucket that holds the given quantile (0 to 1); 0 when nothing was recorded.
  double Quantile(double quantile) const {
    const double wanted = quantile * static_cast<double>(total_);
    uint64_t seen = 0;
    for (size_t bucket = 0; bucket < counts_.size(); ++bucket) {
      seen += counts_[bucket];
      if (counts_[bucket] != 0 && static_cast<double>(seen) >= wanted) return MiddleOf(bucket);
    }
    return 0;
  }

 private:
  static constexpr unsigned kSubBits = 7;
  static constexpr size_t kSub = size_t{1} << kSubBits;

  static size_t BucketOf(uint64_t value) {
    if (value < kSub) return static_cast<size_t>(value);
    const unsigned exponent = static_cast<unsigned>(std::bit_width(value)) - kSubBits - 1;
    return exponent * kSub + static_cast<size_t>(value >> exponent);
  }

  static double MiddleOf(size_t bucket) {
    if (bucket < 2 * kSub) return static_cast<double>(bucket);
    const size_t exponent = bucket / kSub - 1;
    const double low = static_cast<double>(bucket - exponent * kSub);
    return (low + 0.5) * static_cast<double>(uint64_t{1} << exponent);
  }

  std::array<uint64_t, (64 - kSubBits + 1) * kSub> counts_{};
  uint64_t total_ = 0;
  uint64_t max_ = 0;
};

}  // namespace derplane_load
