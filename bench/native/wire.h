// The little of DERP that a load needs: frame headers, and the payload that our packets carry.
//
//   frame    1 type, 4 length of what follows (big-endian)
//   packet   4 magic, 4 sender, 4 slot, 4 sequence, 8 send time (ns) ... filler ... 4 check (host byte order: we read
//   our own)
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace derplane_load {

inline constexpr uint8_t kServerKey = 0x01;
inline constexpr uint8_t kServerInfo = 0x03;
inline constexpr uint8_t kSendPacket = 0x04;
inline constexpr uint8_t kRecvPacket = 0x05;

inline constexpr size_t kHeaderBytes = 5;
inline constexpr size_t kKeyBytes = 32;
inline constexpr size_t kMaxFrameBytes = 1u << 20;  // what a DERP client accepts at most

// Begins every packet of ours; does not look like disco.
inline constexpr uint32_t kMagic = 0x4c4f4144;

struct Stamp {
  uint32_t magic;
  uint32_t sender;
  uint32_t slot;
  uint32_t sequence;
  int64_t sent_at;
};
static_assert(sizeof(Stamp) == 24);

inline constexpr size_t kCheckBytes = 4;
inline constexpr size_t kMinPacketBytes = sizeof(Stamp) + kCheckBytes;

inline uint32_t CheckOf(const Stamp& stamp) { return stamp.sequence * 2654435761u ^ stamp.sender ^ (stamp.slot << 16); }

inline uint32_t ReadLength(const uint8_t* header) {
  return uint32_t{header[1]} << 24 | uint32_t{header[2]} << 16 | uint32_t{header[3]} << 8 | uint32_t{header[4]};
}

inline void WriteHeader(uint8_t* out, uint8_t type, uint32_t length) {
  out[0] = type;
  out[1] = static_cast<uint8_t>(length >> 24);
  out[2] = static_cast<uint8_t>(length >> 16);
  out[3] = static_cast<uint8_t>(length >> 8);
  out[4] = static_cast<uint8_t>(length);
}

}  // namespace derplane_load
