// How long packets waited for their client's socket: a moving average over packets, a new one weighing a tenth, in
// milliseconds. Packets that the kernel took within their turn waited 0; those dropped at a queue's head count with the
// time until then.
#pragma once

#include <cmath>
#include <cstdint>

namespace derplane {

class QueueDuration {
 public:
  static constexpr double kAlpha = 0.1;

  void waited(uint64_t ms) { average_ += kAlpha * (static_cast<double>(ms) - average_); }

  // The usual case by far: no packet waited, and none did recently.
  void didNotWait(uint32_t packets) {
    if (average_ != 0) decay(packets);
  }

  double average() const { return average_; }

 private:
  static constexpr double kNothing = 1e-6;

  void decay(uint32_t packets) {
    average_ *= std::pow(1 - kAlpha, packets);
    if (average_ < kNothing) average_ = 0;
  }

  double average_ = 0;
};

}  // namespace derplane
