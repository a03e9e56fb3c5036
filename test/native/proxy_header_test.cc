// The PROXY protocol and ranges of addresses.
#include "native/io/proxy_header.h"

#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "native/io/accept_limit.h"
#include "native/io/address.h"
#include "native/io/address_range.h"

using namespace derplane;
using State = ProxyHeader::State;

namespace {

ProxyHeader read(const std::string& text) {
  const std::vector<uint8_t> exact(text.begin(), text.end());
  return readProxyHeader(exact);
}

std::string binary(char command, char family, const std::string& rest) {
  std::string out("\r\n\r\n\0\r\nQUIT\n", 12);
  out += command;
  out += family;
  out += static_cast<char>(rest.size() >> 8);
  out += static_cast<char>(rest.size());
  return out + rest;
}

const std::string kIpv4Part("\xc0\x00\x02\x01\x0a\x00\x00\x01\x80\x55\x01\xbb", 12);

}  // namespace

TEST("a line of version 1 tells the client, and where it ends") {
  const ProxyHeader v4 = read("PROXY TCP4 192.0.2.1 10.0.0.1 32853 443\r\nGET /");
  CHECK(v4.state == State::kAddress);
  CHECK(v4.size == 41);
  CHECK(addressText(v4.client) == "192.0.2.1:32853");
  const ProxyHeader v6 = read("PROXY TCP6 2001:db8::1 ::1 1 443\r\n");
  CHECK(v6.state == State::kAddress);
  CHECK(addressText(v6.client) == "[2001:db8::1]:1");
}

TEST("an unknown client of version 1 is none") {
  CHECK(read("PROXY UNKNOWN\r\n").state == State::kLocal);
  CHECK(read("PROXY UNKNOWN ffff::1 ::1 1 2\r\n").state == State::kLocal);
  CHECK(read("PROXY UNKNOWN\r\n").size == 15);
}

TEST("malformed lines are refused") {
  for (const char* line :
       {"PROXY TCP4 192.0.2.1 10.0.0.1 32853\r\n", "PROXY TCP4 192.0.2.1 10.0.0.1 65536 443\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n", "PROXY TCP6 192.0.2.1 10.0.0.1 1 2\r\n", "PROXY UDP4 192.0.2.1 10.0.0.1 1 2\r\n",
        "PROXY \r\n", "PROXY TCP4  192.0.2.1 10.0.0.1 1 2\r\n", "PROXY TCP4 192.0.2.1 10.0.0.1 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 10.0.0.1 +1 2\r\n"}) {
    CHECK(read(line).state == State::kBad);
  }
  CHECK(read("PROXY " + std::string(101, 'x')).state == State::kBad);
}

TEST("version 2 tells the client, whatever extensions follow") {
  const ProxyHeader v4 = read(binary('\x21', '\x11', kIpv4Part + std::string(300, 'x')) + "rest");
  CHECK(v4.state == State::kAddress);
  CHECK(v4.size == 16 + 12 + 300);
  CHECK(addressText(v4.client) == "192.0.2.1:32853");
  std::string ips(32, '\0');
  ips[0] = '\x20';
  ips[15] = '\x07';
  const ProxyHeader v6 = read(binary('\x21', '\x21', ips + std::string("\x00\x09\x01\xbb", 4)));
  CHECK(v6.state == State::kAddress);
  CHECK(addressText(v6.client) == "[2000::7]:9");
}

TEST("LOCAL, and families without TCP, keep the proxy's address") {
  CHECK(read(binary('\x20', '\0', "")).state == State::kLocal);
  CHECK(read(binary('\x20', '\x11', kIpv4Part)).state == State::kLocal);
  CHECK(read(binary('\x21', '\0', "")).state == State::kLocal);
  CHECK(read(binary('\x21', '\x31', std::string(216, 'x'))).state == State::kLocal);
  CHECK(read(binary('\x21', '\x12', kIpv4Part)).state == State::kLocal);
}

TEST("malformed binary headers are refused") {
  CHECK(read(binary('\x11', '\x11', kIpv4Part)).state == State::kBad);
  CHECK(read(binary('\x22', '\x11', kIpv4Part)).state == State::kBad);
  CHECK(read(binary('\x21', '\x11', kIpv4Part.substr(1))).state == State::kBad);
  CHECK(read(binary('\x21', '\x21', kIpv4Part)).state == State::kBad);
  CHECK(read(binary('\x21', '\x11', std::string(60'000, 'x'))).state == State::kBad);
}

TEST("half a header asks for more, anything else is none") {
  for (const std::string& whole :
       {std::string("PROXY TCP4 192.0.2.1 10.0.0.1 32853 443\r\n"), binary('\x21', '\x11', kIpv4Part)}) {
    for (size_t size = 0; size < whole.size(); size++) CHECK(read(whole.substr(0, size)).state == State::kMore);
  }
  for (const char* other : {"GET / HTTP/1.1\r\n", "POST", "PROXX", "\x16\x03\x01", "\r\nG", "\r\n\r\n\r\n"})
    CHECK(read(other).state == State::kNone);
}

TEST("random and damaged headers are read within their bounds") {
  std::mt19937 random(7);
  for (int i = 0; i < 100'000; i++) {
    std::string text = i % 2 == 0 ? "PROXY TCP4 192.0.2.1 10.0.0.1 32853 443\r\n" : binary('\x21', '\x11', kIpv4Part);
    for (unsigned n = 0; n < 1 + random() % 3; n++) text[random() % text.size()] = static_cast<char>(random());
    if (random() % 3 == 0) text.resize(random() % text.size());
    const ProxyHeader found = read(text);
    CHECK(found.size <= text.size());
  }
}

TEST("ranges hold the addresses that share their first bits") {
  AddressRanges ranges;
  CHECK(ranges.empty());
  CHECK(!ranges.contains(parseAddress("10.0.0.1:1")));
  for (const char* text : {"10.0.0.0/8", "192.0.2.7", "2001:db8::/33", "::1/128"}) CHECK(ranges.add(text));
  for (const char* text : {"10.255.0.1:1", "192.0.2.7:9", "[2001:db8:7fff::1]:1", "[::1]:1"})
    CHECK(ranges.contains(parseAddress(text)));
  for (const char* text : {"11.0.0.1:1", "192.0.2.6:1", "[2001:db8:8000::1]:1", "[::2]:1"})
    CHECK(!ranges.contains(parseAddress(text)));
  for (const char* text : {"", "10", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "10.0.0.0/8x", "::/129", "a/8"})
    CHECK(!ranges.add(text));
  AddressRanges all;
  CHECK(all.add("0.0.0.0/0"));
  CHECK(all.contains(parseAddress("203.0.113.1:1")));
  CHECK(!all.contains(parseAddress("[2001:db8::1]:1")));
}

TEST("a limit accepts its burst at once, then so many a second") {
  AcceptLimit limit;
  for (int i = 0; i < 1'000; i++) CHECK(limit.take(1));
  limit.set(2, 3);
  for (int i = 0; i < 3; i++) CHECK(limit.take(1'000));
  CHECK(!limit.take(1'000));
  CHECK(!limit.take(1'499));
  CHECK(limit.take(1'500));
  CHECK(limit.take(60'000));
  CHECK(limit.take(60'000));
  CHECK(limit.take(60'000));
  CHECK(!limit.take(60'000));
  CHECK(limit.refused() == 3);
}
