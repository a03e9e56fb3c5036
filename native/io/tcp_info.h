// What the kernel knows about a TCP connection.
#pragma once

#include <cstdint>

namespace derplane {

struct TcpInfo {
  uint64_t rtt_us = 0;  // smoothed round-trip time
  uint64_t sent = 0;    // payload bytes, those sent again included
  uint64_t received = 0;
};

enum class TcpInfoResult : uint8_t { kOk, kNoTcp, kError };

TcpInfoResult tcpInfo(int fd, TcpInfo& info);

}  // namespace derplane
