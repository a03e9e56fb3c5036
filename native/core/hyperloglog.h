// Estimates how many different hashes it was shown, in 4 KiB, wrong by 1.6% as a rule (HyperLogLog: Flajolet, Fusy,
// Gandouet, Meunier 2007).
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace derplane {

class HyperLogLog {
 public:
  // `hash` must be uniform over all 64 bits.
  void add(uint64_t hash) {
    uint8_t& longest = registers_[hash >> (64 - kIndexBits)];
    // The guard bit ends the run of zeros that the rest of the hash begins with.
    const auto run =
        static_cast<uint8_t>(1 + std::countl_zero((hash << kIndexBits) | (uint64_t{1} << (kIndexBits - 1))));
    if (run > longest) longest = run;
  }

  uint64_t estimate() const {
    constexpr double kRegisters = 1 << kIndexBits;
    constexpr double kAlpha = 0.7213 / (1 + 1.079 / kRegisters);
    uint32_t having[64 - kIndexBits + 2] = {};  // registers by their value
    for (const uint8_t longest : registers_) ++having[longest];
    const uint32_t untouched = having[0];
    double sum = 0;
    for (int longest = 0; longest < 64 - kIndexBits + 2; ++longest) sum += std::ldexp(having[longest], -longest);
    const double raw = kAlpha * kRegisters * kRegisters / sum;
    // Few distinct ones: the number of untouched registers tells more. 64-bit hashes need no correction at the other
    // end.
    const double estimate =
        raw <= 2.5 * kRegisters && untouched > 0 ? kRegisters * std::log(kRegisters / untouched) : raw;
    return static_cast<uint64_t>(std::llround(estimate));
  }

 private:
  static constexpr int kIndexBits = 12;

  uint8_t registers_[1 << kIndexBits] = {};
};

}  // namespace derplane
