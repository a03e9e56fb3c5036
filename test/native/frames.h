// Frames for tests: making them, and reading a stream of them as a client would.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "native/core/frame.h"

namespace frames {

using Bytes = std::vector<uint8_t>;

inline derplane::Key keyOf(uint32_t n) {
  derplane::Key key;
  std::memcpy(key.bytes, &n, sizeof n);
  key.bytes[31] = 0x77;
  return key;
}

inline uint32_t numberOf(const uint8_t* key) {
  uint32_t n;
  std::memcpy(&n, key, sizeof n);
  return n;
}

inline Bytes frame(derplane::FrameType type, const Bytes& body) {
  Bytes bytes(derplane::kFrameHeaderSize + body.size());
  derplane::putFrameHeader(bytes.data(), type, static_cast<uint32_t>(body.size()));
  if (!body.empty()) std::memcpy(bytes.data() + derplane::kFrameHeaderSize, body.data(), body.size());
  return bytes;
}

inline Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

inline Bytes bytesOf(const derplane::Key& key) { return Bytes(key.bytes, key.bytes + derplane::kKeySize); }

// A packet that looks like disco, of `size` bytes, at least 62.
inline Bytes disco(uint32_t size = 62, uint32_t number = 0) {
  Bytes packet(size, 0xd1);
  const uint8_t magic[] = {0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac};
  std::memcpy(packet.data(), magic, sizeof magic);
  std::memcpy(packet.data() + 6, &number, sizeof number);
  return packet;
}

inline Bytes sendPacket(const derplane::Key& to, const Bytes& packet) {
  return frame(derplane::FrameType::kSendPacket, bytesOf(to) + packet);
}

inline Bytes recvPacket(const derplane::Key& from, const Bytes& packet) {
  return frame(derplane::FrameType::kRecvPacket, bytesOf(from) + packet);
}

inline Bytes forwardPacket(const derplane::Key& from, const derplane::Key& to, const Bytes& packet) {
  return frame(derplane::FrameType::kForwardPacket, bytesOf(from) + bytesOf(to) + packet);
}

inline Bytes peerGone(const derplane::Key& key, derplane::PeerGoneReason reason) {
  return frame(derplane::FrameType::kPeerGone, bytesOf(key) + Bytes{static_cast<uint8_t>(reason)});
}

inline Bytes ping(uint64_t number, uint32_t size = derplane::kPingSize) {
  Bytes body(size, 0x99);
  if (!body.empty()) std::memcpy(body.data(), &number, std::min<size_t>(size, sizeof number));
  return frame(derplane::FrameType::kPing, body);
}

inline Bytes pong(uint64_t number) {
  Bytes body(derplane::kPingSize);
  std::memcpy(body.data(), &number, sizeof number);
  return frame(derplane::FrameType::kPong, body);
}

// Takes whole frames off the front of a stream; what is left is the beginning of one frame.
class Reader {
 public:
  void feed(const uint8_t* bytes, size_t size) { stream_.insert(stream_.end(), bytes, bytes + size); }
  void feed(const Bytes& bytes) { feed(bytes.data(), bytes.size()); }

  bool next(Bytes& frame) {
    if (stream_.size() - at_ < derplane::kFrameHeaderSize) return compact();
    const size_t size = derplane::kFrameHeaderSize + derplane::frameLength(stream_.data() + at_);
    if (stream_.size() - at_ < size) return compact();
    frame.assign(stream_.begin() + static_cast<ptrdiff_t>(at_), stream_.begin() + static_cast<ptrdiff_t>(at_ + size));
    at_ += size;
    return true;
  }

  std::vector<Bytes> all() {
    std::vector<Bytes> frames;
    for (Bytes f; next(f);) frames.push_back(f);
    return frames;
  }

  size_t partial() const { return stream_.size() - at_; }

 private:
  bool compact() {
    stream_.erase(stream_.begin(), stream_.begin() + static_cast<ptrdiff_t>(at_));
    at_ = 0;
    return false;
  }

  Bytes stream_;
  size_t at_ = 0;
};

}  // namespace frames
