// STUN as Tailscale's clients speak it: binding requests, and the answers that tell a client the address it is seen by.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "../core/client.h"

namespace derplane {

using StunTransaction = std::array<uint8_t, 12>;

// Bytes of the longest answer, that for IPv6; for IPv4 it has 32. Tailscale's requests have 40.
inline constexpr size_t kMaxStunAnswer = 44;

// The transaction of a binding request that names `tailnode` as its software and ends in a right fingerprint; nothing
// for any other datagram. The header's length does not count: attributes go to the end of the datagram.
std::optional<StunTransaction> parseStunRequest(std::span<const uint8_t> datagram);

// Writes the answer that tells `client`, and returns its length in bytes.
size_t writeStunAnswer(const StunTransaction& transaction, const Address& client,
                       std::span<uint8_t, kMaxStunAnswer> out);

// CRC-32 (IEEE 802.3), as fingerprints use it.
uint32_t crc32(std::span<const uint8_t> bytes);

}  // namespace derplane
