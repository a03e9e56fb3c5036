#include "address_range.h"

#include <charconv>

#include "address.h"

namespace derplane {

bool AddressRanges::add(const std::string& text) {
  const size_t slash = text.find('/');
  const std::string ip = text.substr(0, slash);
  if (!isIpAddress(ip)) return false;
  const bool v6 = ip.find(':') != std::string::npos;
  const int most = v6 ? 128 : 32;
  int bits = most;
  if (slash != std::string::npos) {
    const char* const end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data() + slash + 1, end, bits);
    if (error != std::errc() || rest != end || bits < 0 || bits > most) return false;
  }
  ranges_.push_back({parseAddress((v6 ? "[" + ip + "]" : ip) + ":1"), bits + (v6 ? 0 : 96)});
  return true;
}

bool AddressRanges::contains(const Address& address) const {
  for (const Range& range : ranges_) {
    bool equal = true;
    for (int bit = 0; equal && bit < range.bits; bit += 8) {
      const int rest = range.bits - bit;
      const auto mask = static_cast<uint8_t>(rest >= 8 ? 0xff : 0xff << (8 - rest));
      equal = ((address.ip[bit / 8] ^ range.base.ip[bit / 8]) & mask) == 0;
    }
    if (equal) return true;
  }
  return false;
}

}  // namespace derplane
