// DERP frames, protocol version 2. Every frame is a header (1 byte type, 4 bytes big-endian length of what follows) and
// a body.
//
// A SendPacket and the RecvPacket made of it have the same length, so a relay turns one into the other in place:
//
//   04 | length | destination key (32) | packet          as it came from the sender
//   05 | length | source key (32)      | packet          as it leaves for the destination
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "key.h"

namespace derplane {

enum class FrameType : uint8_t {
  kServerKey = 0x01,      // relay to client: 8 magic, 32 key
  kClientInfo = 0x02,     // client to relay: 32 key, 24 nonce, box of JSON
  kServerInfo = 0x03,     // relay to client: 24 nonce, box of JSON
  kSendPacket = 0x04,     // client to relay: 32 destination, packet
  kRecvPacket = 0x05,     // relay to client: 32 source, packet
  kKeepAlive = 0x06,      // relay to client: empty
  kNotePreferred = 0x07,  // client to relay: 1 byte, non-zero: this relay is the client's home
  kPeerGone = 0x08,       // relay to client: 32 key, 1 reason
  kPeerPresent = 0x09,    // relay to watcher: 32 key, 16 IP, 2 port, 1 flags
  kForwardPacket = 0x0a,  // mesh peer to relay: 32 source, 32 destination, packet
  kWatchConns = 0x10,     // mesh peer to relay: empty
  kClosePeer = 0x11,      // mesh peer to relay: 32 key
  kPing = 0x12,           // both ways: 8 bytes, to a relay up to 1,000
  kPong = 0x13,           // both ways: the ping's first 8 bytes
  kHealth = 0x14,         // relay to client: text, empty = healthy
  kRestarting = 0x15,     // relay to client: 4 ms until reconnecting, 4 ms to keep trying
};

enum class PeerGoneReason : uint8_t {
  kDisconnected = 0x00,  // the key left the region
  kNotHere = 0x01,       // the key is not known in the region
};

inline constexpr uint32_t kFrameHeaderSize = 5;
inline constexpr uint32_t kMaxPacketSize = 64 << 10;  // the packet alone, without header and keys
inline constexpr uint32_t kSendPacketFixed = kKeySize;
inline constexpr uint32_t kForwardPacketFixed = 2 * kKeySize;
// The largest frame that a relay takes whole: ForwardPacket with a packet of full size.
inline constexpr uint32_t kMaxFrameSize = kFrameHeaderSize + kForwardPacketFixed + kMaxPacketSize;
inline constexpr uint32_t kPingSize = 8;
inline constexpr uint32_t kMaxPingSize = 1000;
inline constexpr uint32_t kPeerGoneFrameSize = kFrameHeaderSize + kKeySize + 1;
inline constexpr uint32_t kPeerPresentFrameSize = kFrameHeaderSize + kKeySize + 16 + 2 + 1;
inline constexpr uint32_t kRestartingFrameSize = kFrameHeaderSize + 8;
// What a client refuses to read, and so does our end of a mesh link.
inline constexpr uint32_t kMaxLinkFrameSize = 1 << 20;
inline constexpr uint32_t kPongFrameSize = kFrameHeaderSize + kPingSize;
inline constexpr uint32_t kPacketFrameFixed = kFrameHeaderSize + kKeySize;  // of SendPacket and RecvPacket

inline uint32_t loadBe32(const uint8_t* p) {
  return uint32_t{p[0]} << 24 | uint32_t{p[1]} << 16 | uint32_t{p[2]} << 8 | uint32_t{p[3]};
}

inline void storeBe32(uint8_t* p, uint32_t v) {
  p[0] = static_cast<uint8_t>(v >> 24);
  p[1] = static_cast<uint8_t>(v >> 16);
  p[2] = static_cast<uint8_t>(v >> 8);
  p[3] = static_cast<uint8_t>(v);
}

inline FrameType frameType(const uint8_t* frame) { return static_cast<FrameType>(frame[0]); }
inline uint32_t frameLength(const uint8_t* frame) { return loadBe32(frame + 1); }

// Writes a header and returns the position of the body.
inline uint8_t* putFrameHeader(uint8_t* p, FrameType type, uint32_t length) {
  p[0] = static_cast<uint8_t>(type);
  storeBe32(p + 1, length);
  return p + kFrameHeaderSize;
}

inline void putPeerGone(uint8_t* p, const Key& key, PeerGoneReason reason) {
  uint8_t* body = putFrameHeader(p, FrameType::kPeerGone, kKeySize + 1);
  std::memcpy(body, key.bytes, kKeySize);
  body[kKeySize] = static_cast<uint8_t>(reason);
}

// Flags of PeerPresent; kPresentRegular only when no other is set.
inline constexpr uint8_t kPresentRegular = 1;
inline constexpr uint8_t kPresentMeshPeer = 2;
inline constexpr uint8_t kPresentProber = 4;
inline constexpr uint8_t kPresentNotIdeal = 8;

// `ip`: 16 bytes, IPv4 as v4-in-v6.
inline void putPeerPresent(uint8_t* p, const Key& key, const uint8_t* ip, uint16_t port, uint8_t flags) {
  uint8_t* body = putFrameHeader(p, FrameType::kPeerPresent, kPeerPresentFrameSize - kFrameHeaderSize);
  std::memcpy(body, key.bytes, kKeySize);
  std::memcpy(body + kKeySize, ip, 16);
  body[kKeySize + 16] = static_cast<uint8_t>(port >> 8);
  body[kKeySize + 17] = static_cast<uint8_t>(port);
  body[kKeySize + 18] = flags;
}

// Writes a whole ForwardPacket frame. Source and packet may lie where it goes, `destination` must not.
inline void putForwardPacket(uint8_t* p, const uint8_t* source, const Key& destination, const uint8_t* packet,
                             uint32_t size) {
  const Key from = Key::from(source);
  std::memmove(p + kFrameHeaderSize + kForwardPacketFixed, packet, size);
  uint8_t* body = putFrameHeader(p, FrameType::kForwardPacket, kForwardPacketFixed + size);
  std::memcpy(body, from.bytes, kKeySize);
  std::memcpy(body + kKeySize, destination.bytes, kKeySize);
}

// Magicsock's discovery messages: 6 bytes magic, 32 sender's disco key, 24 nonce, box.
inline constexpr uint32_t kDiscoMinSize = 6 + 32 + 24;

inline bool looksLikeDisco(const uint8_t* packet, uint32_t size) {
  static constexpr uint8_t kMagic[6] = {0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac};
  return size >= kDiscoMinSize && std::memcmp(packet, kMagic, sizeof kMagic) == 0;
}

}  // namespace derplane
