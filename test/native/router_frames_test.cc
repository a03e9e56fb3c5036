// What a relay does with each frame, on one shard.
#include <string>

#include "check.h"
#include "relay_model.h"

using namespace derplane;
using frames::Bytes;
using frames::operator+;
using model::Relay;
using model::Session;

namespace {

const Key kA = frames::keyOf(1), kB = frames::keyOf(2), kNobody = frames::keyOf(99);

// Frames after the ServerInfo, which must come first.
std::vector<Bytes> after(std::vector<Bytes> received) {
  CHECK(!received.empty() && received.front() == Relay::serverInfo());
  if (!received.empty()) received.erase(received.begin());
  return received;
}

// A relay with two clients that read their ServerInfo.
struct Pair {
  explicit Pair(const model::Options& options = {}, bool mesh = false)
      : relay(options), a(relay.connect(kA, mesh)), b(relay.connect(kB)) {
    relay.settle();
    CHECK_EQ(after(a.received()).size(), 0u);
    CHECK_EQ(after(b.received()).size(), 0u);
  }
  ~Pair() { CHECK_EQ(relay.violation(), ""); }

  void send(const Bytes& bytes) {
    relay.send(a, bytes);
    relay.settle();
  }

  Relay relay;
  Session& a;
  Session& b;
};

// Sends `bytes` from a mesh peer or an ordinary client; why it was closed, "" when it was not.
std::string closedBy(const Bytes& bytes, bool mesh) {
  Pair p({}, mesh);
  p.send(bytes);
  CHECK(!p.b.closed());
  return p.a.closed() ? closeReasonName(p.a.reason) : "";
}

Bytes headerOnly(FrameType type, uint32_t length) {
  Bytes bytes(kFrameHeaderSize);
  putFrameHeader(bytes.data(), type, length);
  return bytes;
}

}  // namespace

TEST("a packet arrives as it was sent, with the sender's key, at every size") {
  Pair p;
  for (const uint32_t size : {0u, 1u, 61u, 62u, 1280u, 1999u, 2000u, 65'535u, 65'536u}) {
    const Bytes packet(size, static_cast<uint8_t>(size));
    p.send(frames::sendPacket(kB, packet));
    const auto got = p.b.received();
    CHECK(got.size() == 1 && got[0] == frames::recvPacket(kA, packet));
  }
  CHECK_EQ(p.relay.get(Counter::packets_received), 9);
  CHECK_EQ(p.relay.get(Counter::packets_sent), 9);
  CHECK_EQ(p.relay.get(Counter::bytes_received), p.relay.get(Counter::bytes_sent));
}

TEST("a client may send to itself") {
  Pair p;
  p.send(frames::sendPacket(kA, Bytes(10)));
  const auto got = p.a.received();
  CHECK(got.size() == 1 && got[0] == frames::recvPacket(kA, Bytes(10)));
}

TEST("disco and other packets are counted apart") {
  Pair p;
  p.send(frames::sendPacket(kB, frames::disco(62)) + frames::sendPacket(kB, Bytes(62)));
  CHECK_EQ(p.relay.get(Counter::packets_received_disco), 1);
  CHECK_EQ(p.relay.get(Counter::packets_received_other), 1);
}

TEST("frames that no client may send close that connection alone, before their body comes") {
  CHECK_EQ(closedBy(headerOnly(FrameType::kSendPacket, 31), false), "bad_packet_frame");
  CHECK_EQ(closedBy(headerOnly(FrameType::kSendPacket, 0), false), "bad_packet_frame");
  CHECK_EQ(closedBy(headerOnly(FrameType::kSendPacket, 32 + 65'537), false), "packet_too_big");
  CHECK_EQ(closedBy(headerOnly(FrameType::kSendPacket, UINT32_MAX), false), "packet_too_big");
  CHECK_EQ(closedBy(headerOnly(FrameType::kNotePreferred, 0), false), "bad_note_preferred");
  CHECK_EQ(closedBy(headerOnly(FrameType::kNotePreferred, 2), false), "bad_note_preferred");
  CHECK_EQ(closedBy(headerOnly(FrameType::kPing, 7), false), "bad_ping");
  CHECK_EQ(closedBy(headerOnly(FrameType::kPing, 1001), false), "bad_ping");
  CHECK_EQ(closedBy(headerOnly(FrameType::kPing, UINT32_MAX), false), "bad_ping");
  CHECK_EQ(closedBy(headerOnly(FrameType::kForwardPacket, 64), false), "insufficient_permissions");
  CHECK_EQ(closedBy(headerOnly(FrameType::kWatchConns, 0), false), "insufficient_permissions");
  CHECK_EQ(closedBy(headerOnly(FrameType::kClosePeer, 32), false), "insufficient_permissions");
}

TEST("frames that a mesh peer may not send close it") {
  CHECK_EQ(closedBy(headerOnly(FrameType::kForwardPacket, 63), true), "bad_packet_frame");
  CHECK_EQ(closedBy(headerOnly(FrameType::kForwardPacket, 64 + 65'537), true), "packet_too_big");
  CHECK_EQ(closedBy(headerOnly(FrameType::kWatchConns, 1), true), "bad_watch_conns");
  CHECK_EQ(closedBy(headerOnly(FrameType::kClosePeer, 31), true), "bad_close_peer");
  CHECK_EQ(closedBy(headerOnly(FrameType::kClosePeer, 33), true), "bad_close_peer");
  CHECK_EQ(closedBy(frames::forwardPacket(Key{}, kB, Bytes(8)), true), "bad_forward_source");
}

TEST("frames at their limits close nobody") {
  CHECK_EQ(closedBy(frames::sendPacket(kB, {}), false), "");
  CHECK_EQ(closedBy(frames::sendPacket(kB, Bytes(65'536)), false), "");
  CHECK_EQ(closedBy(frames::ping(1, 8) + frames::ping(2, 1000), false), "");
  CHECK_EQ(closedBy(frames::forwardPacket(kA, kB, {}), true), "");
  CHECK_EQ(closedBy(frames::forwardPacket(kA, kB, Bytes(65'536)), true), "");
  CHECK_EQ(closedBy(frames::frame(FrameType::kWatchConns, {}), true), "");
}

TEST("what follows a frame that closes is not looked at, what came before it is delivered") {
  Pair p;
  p.send(frames::sendPacket(kB, Bytes(1)) + headerOnly(FrameType::kPing, 0) + frames::sendPacket(kB, Bytes(2)));
  CHECK(p.a.closed());
  const auto got = p.b.received();
  CHECK(!got.empty() && got[0] == frames::recvPacket(kA, Bytes(1)));
  CHECK_EQ(p.relay.get(Counter::packets_received), 1);
}

TEST("frames of unknown type are skipped at any length and counted") {
  Pair p;
  Bytes bytes = headerOnly(FrameType{0x7f}, 0) + headerOnly(FrameType{0x00}, 1) + Bytes(1, 4);
  bytes = bytes + headerOnly(FrameType::kRecvPacket, 200'000) + Bytes(200'000, 4) + frames::sendPacket(kB, Bytes(3));
  p.send(bytes);
  CHECK_EQ(p.relay.get(Counter::unknown_frames), 3);
  CHECK_EQ(p.relay.get(Counter::held_bytes), 0);
  CHECK_EQ(p.b.received().size(), 1u);
}

TEST("an unknown frame of 4 GiB is skipped to its last byte without being held") {
  Pair p;
  p.send(headerOnly(FrameType{0xff}, UINT32_MAX));
  Client& client = *p.a.client;
  CHECK_EQ(client.skip, UINT32_MAX);
  Bytes chunk(1 << 20, 4);  // would parse as SendPackets
  uint64_t left = UINT32_MAX;
  while (left > 0) {
    const auto n = static_cast<uint32_t>(std::min<uint64_t>(left, chunk.size()));
    const ParseResult result = p.relay.router(0).consume(client, chunk.data(), n);
    CHECK(result.consumed == n && result.status == ParseStatus::kPartial);
    left -= n;
  }
  CHECK_EQ(client.skip, 0u);
  p.send(frames::sendPacket(kB, Bytes(3)));
  CHECK_EQ(p.b.received().size(), 1u);
}

TEST("a stream cut at every byte means the same as whole") {
  const Bytes packet = frames::disco(70);
  const Bytes stream = frames::sendPacket(kB, packet) + frames::ping(5, 20) + headerOnly(FrameType{0x55}, 7) +
                       Bytes(7) + frames::frame(FrameType::kNotePreferred, {1}) +
                       frames::forwardPacket(kNobody, kB, Bytes(9)) + frames::sendPacket(kB, {});
  for (size_t cut = 0; cut <= stream.size(); ++cut) {
    Pair p({}, true);
    p.send(Bytes(stream.begin(), stream.begin() + static_cast<ptrdiff_t>(cut)));
    p.send(Bytes(stream.begin() + static_cast<ptrdiff_t>(cut), stream.end()));
    const auto got = p.b.received();
    CHECK(got.size() == 3 && got[0] == frames::recvPacket(kA, packet) &&
          got[1] == frames::recvPacket(kNobody, Bytes(9)) && got[2] == frames::recvPacket(kA, {}));
    CHECK_EQ(p.a.received().size(), 1u);
    CHECK(p.a.client->preferred);
    CHECK_EQ(p.relay.get(Counter::unknown_frames), 1);
    CHECK_EQ(p.relay.get(Counter::held_bytes), 0);
  }
}

TEST("a stream that drips in byte by byte means the same as whole") {
  Pair p;
  p.a.read_limit = 1;
  p.send(frames::sendPacket(kB, Bytes(300, 7)) + headerOnly(FrameType{0x55}, 7) + Bytes(7) +
         frames::sendPacket(kB, {}));
  CHECK_EQ(p.b.received().size(), 2u);
}

TEST("a ping is answered with its first 8 bytes") {
  Pair p;
  p.send(frames::ping(77, 1000));
  const auto got = p.a.received();
  CHECK(got.size() == 1 && got[0] == frames::pong(77));
  CHECK_EQ(p.relay.get(Counter::got_ping), 1);
  CHECK_EQ(p.relay.get(Counter::sent_pong), 1);
}

TEST("every ping of a burst of 32 is answered, in order, in one segment or in many") {
  for (const uint32_t read_limit : {1u, 13u, 20u, 64u << 10}) {
    Pair p;
    p.a.read_limit = read_limit;
    Bytes burst;
    for (uint64_t n = 0; n < kMaxPongsWaiting; ++n) burst = burst + frames::ping(n);
    p.send(burst);
    const auto got = p.a.received();
    CHECK_EQ(got.size(), kMaxPongsWaiting);
    for (uint64_t n = 0; n < got.size(); ++n) CHECK(got[n] == frames::pong(n));
  }
}

TEST("of pings to a client that does not read 32 are answered, further ones once it reads again") {
  Pair p;
  p.a.kernel_room = 0;
  for (uint64_t n = 0; n < 100; ++n) p.send(frames::ping(n));
  CHECK(p.a.client->queue.controlBytes() <= kMaxPongsWaiting * kPongFrameSize);
  p.a.kernel_room = UINT64_MAX;
  p.relay.settle();
  const auto got = p.a.received();
  CHECK_EQ(got.size(), 32u);
  for (uint64_t n = 0; n < got.size(); ++n) CHECK(got[n] == frames::pong(n));
  p.send(frames::ping(100));
  CHECK(p.a.received() == std::vector<Bytes>{frames::pong(100)});
  CHECK_EQ(p.relay.get(Counter::got_ping), 101);
  CHECK_EQ(p.relay.get(Counter::sent_pong), 33);
}

TEST("pings of a bad length close, and count as pings") {
  for (const uint32_t size : {0u, 7u, 1001u}) {
    Pair p;
    p.send(frames::ping(1) + frames::ping(2, size));
    CHECK(p.a.closed());
    CHECK_EQ(p.relay.get(Counter::got_ping), 2);
  }
}

TEST("a client whose queue never runs empty still gets a pong for each ping it waits for") {
  Pair p;
  p.a.kernel_room = 0;
  for (int i = 0; i < 32; ++i) {
    p.relay.send(p.b, frames::sendPacket(kA, Bytes(1000)));
    p.relay.settle();
  }
  for (uint64_t n = 0; n < 5; ++n) {
    p.send(frames::ping(n));
    p.a.kernel_room = 3000;  // the pong goes first; packets stay
    p.relay.settle();
    CHECK(p.a.client->queue.hasBacklog());
    size_t pongs = 0;
    for (const Bytes& f : p.a.received()) pongs += f == frames::pong(n) ? 1 : 0;
    CHECK_EQ(pongs, 1u);
  }
}

TEST("home counts clients by their last word, a change after five seconds is a move") {
  Pair p;
  const auto note = [&](uint8_t v) { p.send(frames::frame(FrameType::kNotePreferred, {v})); };
  note(1);
  note(2);
  CHECK_EQ(p.relay.get(Counter::current_home_connections), 1);
  CHECK_EQ(p.relay.get(Counter::home_moves_in), 0);
  p.relay.now_ms += 5'001;
  note(0);
  note(0);
  CHECK_EQ(p.relay.get(Counter::current_home_connections), 0);
  CHECK_EQ(p.relay.get(Counter::home_moves_out), 1);
  note(1);
  CHECK_EQ(p.relay.get(Counter::home_moves_in), 1);
  p.relay.disconnect(p.a);
  p.relay.settle();
  CHECK_EQ(p.relay.get(Counter::current_home_connections), 0);
}

TEST("for an unknown key only disco is answered not here, three at once, then one a second") {
  Pair p;
  p.send(frames::sendPacket(kNobody, Bytes(100)));
  CHECK_EQ(p.a.received().size(), 0u);
  for (int i = 0; i < 10; ++i) p.send(frames::sendPacket(kNobody, frames::disco()));
  auto got = p.a.received();
  CHECK_EQ(got.size(), 3u);
  for (const Bytes& f : got) CHECK(f == frames::peerGone(kNobody, PeerGoneReason::kNotHere));
  CHECK_EQ(p.relay.dropped(DropReason::unknown_dest, true), 10);
  CHECK_EQ(p.relay.dropped(DropReason::unknown_dest, false), 1);
  const auto tryAt = [&](uint64_t ms) {
    p.relay.now_ms += ms;
    for (int i = 0; i < 3; ++i) p.send(frames::sendPacket(kNobody, frames::disco()));
    return p.a.received().size();
  };
  CHECK_EQ(tryAt(999), 0u);
  CHECK_EQ(tryAt(1), 1u);
  CHECK_EQ(tryAt(2000), 2u);
  CHECK_EQ(tryAt(60'000), 3u);
  CHECK_EQ(p.relay.get(Counter::peer_gone_not_here_frames), 9);
}

TEST("the limit of not-here answers is each sender's own") {
  Pair p;
  for (int i = 0; i < 5; ++i) p.send(frames::sendPacket(kNobody, frames::disco()));
  p.relay.send(p.b, frames::sendPacket(kNobody, frames::disco()));
  p.relay.settle();
  CHECK_EQ(p.b.received().size(), 1u);
}

TEST("a forwarded packet arrives with its source's key and is never forwarded again") {
  Pair p({}, true);
  const Key source = frames::keyOf(50);
  p.send(frames::forwardPacket(source, kB, Bytes(100, 5)));
  const auto got = p.b.received();
  CHECK(got.size() == 1 && got[0] == frames::recvPacket(source, Bytes(100, 5)));
  p.relay.router(0).setJsForwarder(kNobody, true);
  p.send(frames::forwardPacket(source, kNobody, Bytes(100)));
  CHECK_EQ(p.relay.forwarded.size(), 0u);
  CHECK_EQ(p.relay.dropped(DropReason::unknown_dest_on_fwd, false), 1);
  CHECK_EQ(p.relay.get(Counter::packets_forwarded_in), 2);
  CHECK_EQ(p.relay.get(Counter::packets_received), 0);
}

TEST("a forwarded disco packet for nobody is answered to the mesh peer about the destination") {
  Pair p({}, true);
  for (int i = 0; i < 5; ++i) p.send(frames::forwardPacket(kB, kNobody, frames::disco()));
  const auto got = p.a.received();
  CHECK_EQ(got.size(), 3u);
  for (const Bytes& f : got) CHECK(f == frames::peerGone(kNobody, PeerGoneReason::kNotHere));
}

TEST("a key that only JavaScript forwards gets its packets there, with the right keys") {
  Pair p;
  p.relay.router(0).setJsForwarder(kNobody, true);
  p.send(frames::sendPacket(kNobody, frames::disco(80)));
  CHECK(p.relay.forwarded.size() == 1 && p.relay.forwarded[0].source == kA &&
        p.relay.forwarded[0].destination == kNobody && p.relay.forwarded[0].packet == frames::disco(80));
  p.relay.control_has_room = false;
  p.send(frames::sendPacket(kNobody, frames::disco(80)));
  CHECK_EQ(p.relay.dropped(DropReason::queue_tail, true), 1);
  CHECK_EQ(p.a.received().size(), 0u);
  Session& local = p.relay.connect(kNobody);  // a local client comes before any forwarder
  p.send(frames::sendPacket(kNobody, Bytes(5)));
  CHECK_EQ(after(local.received()).size(), 1u);
  CHECK_EQ(p.relay.forwarded.size(), 1u);
}

TEST("ClosePeer closes all connections of its key, the asker's own included") {
  Pair p({}, true);
  Session& second = p.relay.connect(kB);
  p.relay.settle();
  p.send(frames::frame(FrameType::kClosePeer, frames::bytesOf(kNobody)));
  p.send(frames::frame(FrameType::kClosePeer, frames::bytesOf(kB)));
  CHECK(p.b.closed() && second.closed() && !p.a.closed());
  CHECK(p.b.reason == CloseReason::peer_closed);
  p.send(frames::frame(FrameType::kClosePeer, frames::bytesOf(kA)) + frames::ping(1));
  CHECK(p.a.closed());
  CHECK_EQ(p.relay.get(Counter::got_ping), 0);
}

TEST("what is queued when a client leaves is dropped as gone, and dead sockets as write errors") {
  for (const CloseReason reason : {CloseReason::eof, CloseReason::write_error}) {
    Pair p;
    p.b.kernel_room = 10;
    for (int i = 0; i < 5; ++i) p.send(frames::sendPacket(kB, Bytes(50)));
    p.relay.disconnect(p.b, reason);
    p.relay.settle();
    CHECK_EQ(
        p.relay.dropped(reason == CloseReason::eof ? DropReason::gone_disconnected : DropReason::write_error, false),
        5);
    CHECK_EQ(p.relay.dropped(), 5);
  }
}

TEST("keepalives come between 60 and 65 seconds and a bit, to each client, read or not") {
  Pair p;
  Router& router = p.relay.router(0);
  const auto tick = [&] {
    p.relay.now_ms += router.tickMs();
    p.relay.tick(0);
    p.relay.settle();
  };
  for (int i = 0; i < 300; ++i) tick();  // the wheel has turned more than twice
  Session& c = p.relay.connect(frames::keyOf(3));
  const uint64_t start = p.relay.now_ms;
  for (int i = 0; i < 400; ++i) {
    tick();
    bool alive = false;
    for (const Bytes& f : c.received()) alive = alive || f == frames::frame(FrameType::kKeepAlive, {});
    if (!alive) continue;
    CHECK(p.relay.now_ms >= start + 60'000);
    CHECK(p.relay.now_ms <= start + 65'000 + 2 * router.tickMs());
    return;
  }
  check::fail(__FILE__, __LINE__, "a keepalive came");
}

TEST("a turn full of output delays a keepalive by a tick, not by a minute") {
  constexpr uint32_t kClients = 60'000;
  Relay relay({.keepalive_ms = 60'000});
  for (uint32_t i = 0; i < kClients; ++i) relay.connect(frames::keyOf(i + 1));
  relay.settle();
  const uint64_t tick_ms = relay.router(0).tickMs();
  for (Session* session : relay.sessions()) session->received();
  for (const uint64_t ms : {uint64_t{70'000}, tick_ms, tick_ms}) {
    relay.now_ms += ms;
    relay.tick(0);
    relay.settle();
  }
  uint32_t without = 0;
  for (Session* session : relay.sessions()) without += session->received().empty() ? 1 : 0;
  CHECK_EQ(without, 0u);
}
