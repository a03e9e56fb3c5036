#include "message.h"

#include <cstring>
#include <string_view>

#include "../io/address.h"

namespace derplane {

namespace {

constexpr size_t kHeader = 20;
constexpr size_t kAttributeHeader = 4;
constexpr size_t kFingerprint = kAttributeHeader + 4;
constexpr uint16_t kBindingRequest = 0x0001;
constexpr uint16_t kBindingAnswer = 0x0101;
constexpr uint16_t kXorMappedAddress = 0x0020;
constexpr uint16_t kSoftware = 0x8022;
constexpr uint16_t kFingerprintType = 0x8028;
constexpr uint8_t kCookie[4] = {0x21, 0x12, 0xa4, 0x42};
// What RFC 8489 combines the CRC with, so that no other checksum is taken for a fingerprint.
constexpr uint32_t kFingerprintXor = 0x5354554e;
constexpr std::string_view kTailscaleSoftware = "tailnode";

constexpr std::array<uint32_t, 256> makeCrcTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; byte++) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; bit++) value = (value >> 1) ^ ((value & 1) != 0 ? 0xedb88320u : 0);
    table[byte] = value;
  }
  return table;
}

constexpr std::array<uint32_t, 256> kCrcTable = makeCrcTable();

uint16_t read16(const uint8_t* at) { return static_cast<uint16_t>(at[0] << 8 | at[1]); }

uint32_t read32(const uint8_t* at) { return uint32_t{read16(at)} << 16 | read16(at + 2); }

void write16(uint8_t* at, size_t value) {
  at[0] = static_cast<uint8_t>(value >> 8);
  at[1] = static_cast<uint8_t>(value);
}

// What the attributes of a request say.
struct Attributes {
  bool well_formed = true;
  bool is_tailscale = false;
  uint16_t last_type = 0;
  uint32_t fingerprint = 0;
};

Attributes readAttributes(std::span<const uint8_t> rest) {
  Attributes found;
  while (!rest.empty()) {
    if (rest.size() < kAttributeHeader) return {.well_formed = false};
    const uint16_t type = read16(rest.data());
    const size_t length = read16(rest.data() + 2);
    const size_t padded = (length + 3) & ~size_t{3};
    rest = rest.subspan(kAttributeHeader);
    if (padded > rest.size()) return {.well_formed = false};
    const std::string_view value(reinterpret_cast<const char*>(rest.data()), length);
    found.last_type = type;
    if (type == kSoftware && value == kTailscaleSoftware) found.is_tailscale = true;
    if (type == kFingerprintType && length == 4) found.fingerprint = read32(rest.data());
    rest = rest.subspan(padded);
  }
  return found;
}

}  // namespace

uint32_t crc32(std::span<const uint8_t> bytes) {
  uint32_t value = 0xffffffff;
  for (const uint8_t byte : bytes) value = kCrcTable[(value ^ byte) & 0xff] ^ (value >> 8);
  return ~value;
}

std::optional<StunTransaction> parseStunRequest(std::span<const uint8_t> datagram) {
  if (datagram.size() < kHeader + kFingerprint) return std::nullopt;
  if (read16(datagram.data()) != kBindingRequest) return std::nullopt;
  if (std::memcmp(datagram.data() + 4, kCookie, sizeof kCookie) != 0) return std::nullopt;
  const Attributes attributes = readAttributes(datagram.subspan(kHeader));
  if (!attributes.well_formed || !attributes.is_tailscale || attributes.last_type != kFingerprintType)
    return std::nullopt;
  const auto signed_part = datagram.first(datagram.size() - kFingerprint);
  if (attributes.fingerprint != (crc32(signed_part) ^ kFingerprintXor)) return std::nullopt;
  StunTransaction transaction;
  std::memcpy(transaction.data(), datagram.data() + 8, transaction.size());
  return transaction;
}

size_t writeStunAnswer(const StunTransaction& transaction, const Address& client,
                       std::span<uint8_t, kMaxStunAnswer> out) {
  const bool v4 = isV4(client);
  const size_t ip_size = v4 ? 4 : 16;
  uint8_t* at = out.data();
  write16(at, kBindingAnswer);
  write16(at + 2, kAttributeHeader + 4 + ip_size);
  std::memcpy(at + 4, kCookie, sizeof kCookie);
  std::memcpy(at + 8, transaction.data(), transaction.size());
  write16(at + 20, kXorMappedAddress);
  write16(at + 22, 4 + ip_size);
  at[24] = 0;
  at[25] = v4 ? 1 : 2;
  write16(at + 26, client.port ^ read16(kCookie));
  // The address is combined with the cookie and the transaction, which follow each other in the header.
  const uint8_t* ip = client.ip + sizeof client.ip - ip_size;
  for (size_t i = 0; i < ip_size; i++) at[28 + i] = static_cast<uint8_t>(ip[i] ^ at[4 + i]);
  return 28 + ip_size;
}

}  // namespace derplane
