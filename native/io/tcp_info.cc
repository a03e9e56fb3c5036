#include "tcp_info.h"

#include <linux/tcp.h>  // <netinet/tcp.h>, which uv.h includes, has a tcp_info without byte counts
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>

namespace derplane {

TcpInfoResult tcpInfo(int fd, TcpInfo& info) {
  tcp_info kernel{};  // older kernels fill in a part of it
  socklen_t size = sizeof kernel;
  if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &kernel, &size) != 0) {
    return errno == EOPNOTSUPP || errno == ENOPROTOOPT ? TcpInfoResult::kNoTcp : TcpInfoResult::kError;
  }
  info = {.rtt_us = kernel.tcpi_rtt, .sent = kernel.tcpi_bytes_sent, .received = kernel.tcpi_bytes_received};
  return TcpInfoResult::kOk;
}

}  // namespace derplane
