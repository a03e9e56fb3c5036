#include "native/core/frame.h"

#include <vector>

#include "check.h"

using namespace derplane;

TEST("lengths are big-endian, the largest included") {
  uint8_t bytes[4];
  storeBe32(bytes, 0x01020304);
  CHECK_EQ(bytes[0], 1);
  CHECK_EQ(bytes[3], 4);
  for (const uint32_t v : {0u, 1u, 0x80u, 0xff00u, 0x7fffffffu, 0x80000000u, UINT32_MAX}) {
    storeBe32(bytes, v);
    CHECK_EQ(loadBe32(bytes), v);
  }
}

TEST("a header is its type and the length of what follows") {
  uint8_t frame[kFrameHeaderSize] = {};
  CHECK(putFrameHeader(frame, FrameType::kPing, 8) == frame + kFrameHeaderSize);
  const uint8_t want[] = {0x12, 0, 0, 0, 8};
  CHECK(std::memcmp(frame, want, sizeof want) == 0);
  CHECK(frameType(frame) == FrameType::kPing);
  CHECK_EQ(frameLength(frame), 8u);
}

TEST("PeerGone is the key and the reason, 38 bytes in all") {
  CHECK_EQ(kPeerGoneFrameSize, 38u);
  Key key;
  for (uint32_t i = 0; i < kKeySize; ++i) key.bytes[i] = static_cast<uint8_t>(i + 1);
  uint8_t frame[kPeerGoneFrameSize + 1];
  frame[kPeerGoneFrameSize] = 0xee;
  putPeerGone(frame, key, PeerGoneReason::kNotHere);
  const uint8_t header[] = {0x08, 0, 0, 0, 33};
  CHECK(std::memcmp(frame, header, sizeof header) == 0);
  CHECK(std::memcmp(frame + 5, key.bytes, kKeySize) == 0);
  CHECK_EQ(frame[37], 1);
  CHECK_EQ(frame[kPeerGoneFrameSize], 0xee);
  putPeerGone(frame, key, PeerGoneReason::kDisconnected);
  CHECK_EQ(frame[37], 0);
}

TEST("the numbers of the frames are the protocol's") {
  CHECK_EQ(FrameType::kSendPacket, FrameType{4});
  CHECK_EQ(FrameType::kRecvPacket, FrameType{5});
  CHECK_EQ(FrameType::kKeepAlive, FrameType{6});
  CHECK_EQ(FrameType::kForwardPacket, FrameType{10});
  CHECK_EQ(FrameType::kWatchConns, FrameType{16});
  CHECK_EQ(FrameType::kClosePeer, FrameType{17});
  CHECK_EQ(FrameType::kPong, FrameType{19});
  CHECK_EQ(FrameType::kRestarting, FrameType{21});
  CHECK_EQ(kMaxPacketSize, 65'536u);
  CHECK_EQ(kMaxFrameSize, 65'605u);
}

TEST("a packet looks like disco when it begins with the magic and has 62 bytes at least") {
  std::vector<uint8_t> packet(62, 0);
  const uint8_t magic[] = {0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac};
  std::memcpy(packet.data(), magic, sizeof magic);
  CHECK(looksLikeDisco(packet.data(), 62));
  CHECK(!looksLikeDisco(packet.data(), 61));
  CHECK(!looksLikeDisco(packet.data(), 6));
  CHECK(!looksLikeDisco(packet.data(), 0));
  for (uint32_t i = 0; i < sizeof magic; ++i) {
    packet[i] ^= 1;
    CHECK(!looksLikeDisco(packet.data(), 62));
    packet[i] ^= 1;
  }
}
