// How many connections all listeners of a relay accept: a token bucket. Only the control plane's thread uses it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

namespace derplane {

class AcceptLimit {
 public:
  // `burst`: connections accepted at once; the bucket is full at first. An infinite `per_second` is no limit.
  void set(double per_second, double burst) {
    per_second_ = per_second;
    burst_ = burst;
    left_ = burst;
  }

  // Whether one more may come in. `now_ms`: milliseconds of a clock that only rises.
  bool take(uint64_t now_ms) {
    if (per_second_ == std::numeric_limits<double>::infinity()) return true;
    if (last_ms_ != 0) left_ = std::min(burst_, left_ + static_cast<double>(now_ms - last_ms_) * per_second_ / 1000);
    last_ms_ = now_ms;
    if (left_ < 1) {
      refused_++;
      return false;
    }
    left_ -= 1;
    return true;
  }

  uint64_t refused() const { return refused_; }

 private:
  double per_second_ = std::numeric_limits<double>::infinity();
  double burst_ = 0;
  double left_ = 0;
  uint64_t last_ms_ = 0;
  uint64_t refused_ = 0;
};

}  // namespace derplane
