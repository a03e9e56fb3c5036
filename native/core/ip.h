// IP addresses as 16 bytes, IPv4 as v4-in-v6.
#pragma once

#include <cstdint>
#include <cstring>

namespace derplane {

// What stands in front of the 4 bytes of an IPv4 address.
inline constexpr uint8_t kV4InV6[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

inline bool isV4(const uint8_t* ip) { return std::memcmp(ip, kV4InV6, sizeof kV4InV6) == 0; }

}  // namespace derplane
