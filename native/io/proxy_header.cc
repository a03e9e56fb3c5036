#include "proxy_header.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <string_view>

#include "address.h"

namespace derplane {

namespace {

using State = ProxyHeader::State;

constexpr std::string_view kText = "PROXY ";
// What the specification allows a line of version 1, its end included.
constexpr size_t kMaxLine = 107;
constexpr std::string_view kSignature("\r\n\r\n\0\r\nQUIT\n", 12);
constexpr size_t kFixed = 16;  // signature, version and command, family, length
constexpr uint8_t kLocalCommand = 0x20;
constexpr uint8_t kProxyCommand = 0x21;
constexpr uint8_t kTcp4 = 0x11;
constexpr uint8_t kTcp6 = 0x21;

// The next word of a line and the blank behind it.
std::string_view takeWord(std::string_view& line) {
  const size_t end = std::min(line.find(' '), line.size());
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(std::min(end + 1, line.size()));
  return word;
}

bool isPort(std::string_view text) {
  if (text.empty() || text.size() > 5 ||
      !std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; }))
    return false;
  return std::stoi(std::string(text)) <= 65'535;
}

// `192.0.2.1` and `443` as an address of the family; port 0 of the result: they are none.
bool toClient(std::string_view ip, std::string_view port, bool v4, Address& client) {
  const std::string text(ip);
  if (!isPort(port) || !isIpAddress(text) || v4 != (text.find(':') == std::string::npos)) return false;
  client = parseAddress((v4 ? text : "[" + text + "]") + ":" + std::string(port));
  return v4 == isV4(client);
}

ProxyHeader readLine(std::string_view text) {
  const size_t end = text.substr(0, kMaxLine).find("\r\n");
  if (end == std::string_view::npos) return {.state = text.size() < kMaxLine ? State::kMore : State::kBad};
  std::string_view line = text.substr(kText.size(), end - kText.size());
  const std::string_view family = takeWord(line);
  ProxyHeader found{.state = State::kLocal, .size = end + 2};
  if (family == "UNKNOWN") return found;
  if (family != "TCP4" && family != "TCP6") return {.state = State::kBad};
  const bool v4 = family == "TCP4";
  const std::string_view source = takeWord(line);
  const std::string_view destination = takeWord(line);
  const std::string_view source_port = takeWord(line);
  Address ignored;
  if (!toClient(source, source_port, v4, found.client) || !toClient(destination, line, v4, ignored))
    return {.state = State::kBad};
  found.state = State::kAddress;
  return found;
}

ProxyHeader readBinary(std::span<const uint8_t> bytes) {
  if (bytes.size() < kFixed) return {.state = State::kMore};
  const uint8_t command = bytes[12];
  const uint8_t family = bytes[13];
  const size_t length = static_cast<size_t>(bytes[14]) << 8 | bytes[15];
  if ((command != kLocalCommand && command != kProxyCommand) || kFixed + length > kMaxProxyHeader)
    return {.state = State::kBad};
  if (bytes.size() < kFixed + length) return {.state = State::kMore};
  ProxyHeader found{.state = State::kLocal, .size = kFixed + length};
  if (command == kLocalCommand || (family != kTcp4 && family != kTcp6)) return found;
  // Source and destination address, then their ports.
  const size_t ip_size = family == kTcp4 ? 4 : 16;
  if (length < 2 * ip_size + 4) return {.state = State::kBad};
  const uint8_t* at = bytes.data() + kFixed;
  const auto port = static_cast<uint16_t>(at[2 * ip_size] << 8 | at[2 * ip_size + 1]);
  if (family == kTcp4) {
    found.client = v4Address(at, port);
  } else {
    std::memcpy(found.client.ip, at, ip_size);
    found.client.port = port;
  }
  found.state = State::kAddress;
  return found;
}

}  // namespace

ProxyHeader readProxyHeader(std::span<const uint8_t> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  for (const std::string_view begin : {kText, kSignature}) {
    const size_t common = std::min(begin.size(), text.size());
    if (text.substr(0, common) != begin.substr(0, common)) continue;
    if (common < begin.size()) return {.state = State::kMore};
    return begin == kText ? readLine(text) : readBinary(bytes);
  }
  return {};
}

}  // namespace derplane
