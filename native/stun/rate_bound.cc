#include "rate_bound.h"

#include <algorithm>

#include "../io/address.h"

namespace derplane {

namespace {

// The prefix of a source, never 0.
uint64_t prefixOf(const Address& source) {
  const uint8_t* ip = source.ip;
  uint64_t prefix = 0;
  if (isV4(source)) {
    for (int i = 12; i < 15; i++) prefix = prefix << 8 | ip[i];
    return prefix | uint64_t{1} << 62;
  }
  for (int i = 0; i < 6; i++) prefix = prefix << 8 | ip[i];
  return prefix | uint64_t{1} << 63;
}

// The finalizer of SplitMix64: every bit of the result depends on every bit of the value.
uint64_t mix(uint64_t value) {
  value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
  value = (value ^ value >> 27) * 0x94d049bb133111eb;
  return value ^ value >> 31;
}

}  // namespace

StunRateBound::StunRateBound(uint32_t per_second, uint64_t seed)
    : per_second_(static_cast<float>(per_second)), seed_(seed), entries_(per_second == 0 ? 0 : kWays * kSets) {}

bool StunRateBound::allow(const Address& source, uint32_t now_ms) {
  if (entries_.empty()) return true;
  Entry& entry = entryOf(prefixOf(source), now_ms);
  const uint32_t passed_ms = now_ms - entry.at_ms;
  entry.at_ms = now_ms;
  entry.answers = std::min(per_second_, entry.answers + static_cast<float>(passed_ms) * per_second_ / 1000);
  if (entry.answers < 1) return false;
  entry.answers -= 1;
  return true;
}

StunRateBound::Entry& StunRateBound::entryOf(uint64_t prefix, uint32_t now_ms) {
  Entry* const set = &entries_[mix(prefix ^ seed_) % kSets * kWays];
  Entry* oldest = set;
  for (Entry* entry = set; entry < set + kWays; entry++) {
    if (entry->prefix == prefix) return *entry;
    if (oldest->prefix == 0) continue;
    if (entry->prefix == 0 || now_ms - entry->at_ms > now_ms - oldest->at_ms) oldest = entry;
  }
  *oldest = {.prefix = prefix, .answers = per_second_, .at_ms = now_ms};
  return *oldest;
}

}  // namespace derplane
