// STUN without a network: what is answered, with what, and how often.
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "native/io/address.h"
#include "native/stun/message.h"
#include "native/stun/rate_bound.h"

using namespace derplane;

namespace {

using Bytes = std::vector<uint8_t>;

void append16(Bytes& out, size_t value) {
  out.push_back(static_cast<uint8_t>(value >> 8));
  out.push_back(static_cast<uint8_t>(value));
}

void attribute(Bytes& out, uint16_t type, const std::string& value) {
  append16(out, type);
  append16(out, value.size());
  out.insert(out.end(), value.begin(), value.end());
  while (out.size() % 4 != 0) out.push_back(0);
}

void fingerprint(Bytes& out) {
  const uint32_t value = crc32(out) ^ 0x5354554e;
  append16(out, 0x8028);
  append16(out, 4);
  append16(out, value >> 16);
  append16(out, value & 0xffff);
}

Bytes header(uint16_t type = 0x0001) {
  Bytes out;
  append16(out, type);
  append16(out, 20);
  for (const int byte : {0x21, 0x12, 0xa4, 0x42}) out.push_back(static_cast<uint8_t>(byte));
  for (uint8_t i = 1; i <= 12; i++) out.push_back(i);
  return out;
}

Bytes request(const std::string& software = "tailnode") {
  Bytes out = header();
  attribute(out, 0x8022, software);
  fingerprint(out);
  return out;
}

bool isAnswered(const Bytes& datagram) { return parseStunRequest(datagram).has_value(); }

}  // namespace

TEST("the checksum is that of IEEE 802.3") {
  const std::string text = "123456789";
  CHECK(crc32({reinterpret_cast<const uint8_t*>(text.data()), text.size()}) == 0xcbf43926);
}

TEST("a request of Tailscale's is answered, and has 40 bytes") {
  const Bytes datagram = request();
  CHECK(datagram.size() == 40);
  const auto transaction = parseStunRequest(datagram);
  CHECK(transaction.has_value());
  CHECK((*transaction)[0] == 1);
  CHECK((*transaction)[11] == 12);
}

TEST("other software, another type, another cookie and a fingerprint that is wrong or not last get no answer") {
  CHECK(!isAnswered(request("tailnodf")));
  CHECK(!isAnswered(request("tailnode ")));
  Bytes changed = request();
  changed[0] = 0x01;
  CHECK(!isAnswered(changed));
  changed = request();
  changed[4] ^= 1;
  CHECK(!isAnswered(changed));
  changed = request();
  changed.back() ^= 1;
  CHECK(!isAnswered(changed));
  Bytes behind = request();
  attribute(behind, 0x0006, "user");
  CHECK(!isAnswered(behind));
  Bytes none = header();
  attribute(none, 0x8022, "tailnode");
  CHECK(!isAnswered(none));
}

TEST("further attributes, and a length in the header that lies, do not matter") {
  Bytes datagram = header();
  attribute(datagram, 0x0006, "a user");
  attribute(datagram, 0x8022, "other");
  attribute(datagram, 0x8022, "tailnode");
  datagram[2] = 0xff;
  fingerprint(datagram);
  CHECK(isAnswered(datagram));
}

TEST("a request cut anywhere gets no answer") {
  const Bytes whole = request();
  for (size_t size = 0; size < whole.size(); size++)
    CHECK(!isAnswered(Bytes(whole.begin(), whole.begin() + static_cast<long>(size))));
}

TEST("random datagrams and damaged requests get no answer, and are read within their bounds") {
  std::mt19937 random(20261125);
  for (int i = 0; i < 200'000; i++) {
    Bytes datagram = request();
    const size_t changes = 1 + random() % 4;
    for (size_t n = 0; n < changes; n++)
      datagram[random() % datagram.size()] ^= static_cast<uint8_t>(1 + random() % 255);
    if (random() % 4 == 0) datagram.resize(random() % 64);
    // On the heap and of its exact size, so that AddressSanitizer sees every byte beyond.
    const std::vector<uint8_t> exact(datagram);
    if (exact != request()) CHECK(!isAnswered(exact));
  }
}

TEST("the answer tells an IPv4 address in 32 bytes and an IPv6 address in 44") {
  StunTransaction transaction;
  for (uint8_t i = 0; i < 12; i++) transaction[i] = static_cast<uint8_t>(i + 1);
  std::array<uint8_t, kMaxStunAnswer> out;
  CHECK(writeStunAnswer(transaction, parseAddress("192.0.2.1:32853"), out) == 32);
  const Bytes v4 = {0x01, 0x01, 0,  12, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3,    4,    5,    6,    7,    8,
                    9,    10,   11, 12, 0,    0x20, 0,    8,    0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43};
  CHECK(Bytes(out.begin(), out.begin() + 32) == v4);
  CHECK(writeStunAnswer(transaction, parseAddress("[2001:db8::1]:32853"), out) == 44);
  CHECK(out[25] == 2);
  CHECK(out[28] == (0x20 ^ 0x21));
  CHECK(out[43] == (0x01 ^ 12));
}

TEST("a prefix gets so many answers at once, and as many again a second later") {
  StunRateBound bound(10, 1);
  const Address source = parseAddress("192.0.2.1:1");
  const Address neighbour = parseAddress("192.0.2.200:2");
  for (int i = 0; i < 10; i++) CHECK(bound.allow(i % 2 == 0 ? source : neighbour, 4'294'967'000u));
  CHECK(!bound.allow(source, 4'294'967'000u));
  CHECK(!bound.allow(neighbour, 4'294'967'000u));
  CHECK(bound.allow(parseAddress("192.0.3.1:1"), 4'294'967'000u));
  // The clock wraps.
  for (int i = 0; i < 10; i++) CHECK(bound.allow(source, 704));
  CHECK(!bound.allow(source, 704));
}

TEST("an IPv6 /48 is one source, another one is another") {
  StunRateBound bound(1, 1);
  CHECK(bound.allow(parseAddress("[2001:db8:1:2::3]:1"), 0));
  CHECK(!bound.allow(parseAddress("[2001:db8:1:ffff::9]:1"), 0));
  CHECK(bound.allow(parseAddress("[2001:db8:2:2::3]:1"), 0));
}

TEST("100,000 prefixes leave a busy prefix its bound") {
  StunRateBound bound(100, 7);
  const Address busy = parseAddress("198.51.100.1:1");
  int answered = 0;
  for (uint32_t i = 0; i < 100'000; i++) {
    Address other = parseAddress("10.0.0.1:1");
    other.ip[12] = static_cast<uint8_t>(11 + (i >> 16));
    other.ip[13] = static_cast<uint8_t>(i >> 8);
    other.ip[14] = static_cast<uint8_t>(i);
    bound.allow(other, i / 100);
    if (bound.allow(busy, i / 100)) answered++;
  }
  CHECK(answered <= 100 + 100);
}

TEST("without a bound every request is answered") {
  StunRateBound bound(0, 1);
  for (int i = 0; i < 100'000; i++) CHECK(bound.allow(parseAddress("192.0.2.1:1"), 0));
}
