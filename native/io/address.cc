#include "address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <charconv>
#include <cstring>

#include "../core/ip.h"

namespace derplane {

Address toAddress(const sockaddr_storage& storage) {
  Address address;
  if (storage.ss_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&storage);
    return v4Address(&v4->sin_addr, ntohs(v4->sin_port));
  } else if (storage.ss_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&storage);
    std::memcpy(address.ip, &v6->sin6_addr, 16);
    address.port = ntohs(v6->sin6_port);
  }
  return address;
}

Address v4Address(const void* ip, uint16_t port) {
  Address address;
  std::memcpy(address.ip, kV4InV6, sizeof kV4InV6);
  std::memcpy(address.ip + sizeof kV4InV6, ip, 4);
  address.port = port;
  return address;
}

bool isV4(const Address& address) { return isV4(address.ip); }

Address peerAddress(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  return getpeername(fd, reinterpret_cast<sockaddr*>(&storage), &size) == 0 ? toAddress(storage) : Address{};
}

std::string localAddressText(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return "";
  const std::string text = addressText(toAddress(storage));
  const std::string ip = text.substr(0, text.rfind(':'));
  return ip.starts_with('[') ? ip.substr(1, ip.size() - 2) : ip;
}

bool isIpAddress(const std::string& text) {
  uint8_t bytes[16];
  return inet_pton(AF_INET, text.c_str(), bytes) == 1 || inet_pton(AF_INET6, text.c_str(), bytes) == 1;
}

std::string addressText(const Address& address) {
  static constexpr Address kUnknown{};
  if (std::memcmp(address.ip, kUnknown.ip, 16) == 0 && address.port == 0) return "";
  char text[INET6_ADDRSTRLEN];
  const std::string port = std::to_string(address.port);
  if (isV4(address)) {
    inet_ntop(AF_INET, address.ip + 12, text, sizeof text);
    return std::string(text) + ":" + port;
  }
  inet_ntop(AF_INET6, address.ip, text, sizeof text);
  return "[" + std::string(text) + "]:" + port;
}

Address parseAddress(const std::string& text) {
  Address address;
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return address;
  std::string ip = text.substr(0, colon);
  const char* end = text.data() + text.size();
  uint16_t port = 0;
  if (const auto [stop, error] = std::from_chars(text.data() + colon + 1, end, port);
      error != std::errc() || stop != end) {
    return address;
  }
  if (ip.size() >= 2 && ip.front() == '[' && ip.back() == ']') ip = ip.substr(1, ip.size() - 2);
  uint8_t v4[4];
  if (inet_pton(AF_INET, ip.c_str(), v4) == 1) {
    return v4Address(v4, port);
  }
  if (inet_pton(AF_INET6, ip.c_str(), address.ip) != 1) return Address{};
  address.port = port;
  return address;
}

}  // namespace derplane
