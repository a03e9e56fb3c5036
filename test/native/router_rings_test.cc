// Routers joined by rings: packets, answers and notices between shards, connections that wait for room, keys that
// leave.
#include <algorithm>
#include <string>

#include "check.h"
#include "relay_model.h"

using namespace derplane;
using frames::Bytes;
using frames::operator+;
using model::Relay;
using model::Session;

namespace {

std::vector<Bytes> packets(Session& session) {
  std::vector<Bytes> all = session.received();
  std::erase_if(all, [](const Bytes& f) { return f == Relay::serverInfo(); });
  return all;
}

Bytes numbered(uint32_t number, uint32_t size) {
  Bytes packet(size, 0x33);
  std::memcpy(packet.data(), &number, sizeof number);
  return packet;
}

// Shards 0 and 1 with one sender on 0 and one receiver on 1.
struct Across {
  explicit Across(uint32_t shards = 2, bool mesh = false)
      : relay({.shards = shards}), a(relay.connect(relay.keyOn(0, 0), mesh)), b(relay.connect(relay.keyOn(1, 0))) {
    relay.settle();
    packets(a);
    packets(b);
  }
  ~Across() { CHECK_EQ(relay.violation(), ""); }
  Relay relay;
  Session& a;
  Session& b;
};

// Sends packets of 60,000 bytes while shard 1 sleeps, until the sender is blocked; returns how many were sent.
uint32_t fillRing(Across& x) {
  uint32_t n = 0;
  while (x.a.client->blocked_on == kNotBlocked && n < 100) {
    x.relay.send(x.a, frames::sendPacket(x.b.key, numbered(n++, 60'000)));
    while (!x.a.unread.empty() && x.a.client->blocked_on == kNotBlocked) x.relay.turn(0);
  }
  return n;
}

bool heardGone(Session& session, const Key& key, size_t times = 1) {
  size_t heard = 0;
  for (const Bytes& f : packets(session)) heard += f == frames::peerGone(key, PeerGoneReason::kDisconnected) ? 1 : 0;
  return heard == times;
}

}  // namespace

TEST("packets cross shards both ways at every size") {
  Across x;
  for (const uint32_t size : {0u, 1u, 7u, 8u, 1280u, 65'536u}) {
    x.relay.send(x.a, frames::sendPacket(x.b.key, Bytes(size, 1)));
    x.relay.send(x.b, frames::sendPacket(x.a.key, Bytes(size, 2)));
    x.relay.settle();
    const auto at_b = packets(x.b), at_a = packets(x.a);
    CHECK(at_b.size() == 1 && at_b[0] == frames::recvPacket(x.a.key, Bytes(size, 1)));
    CHECK(at_a.size() == 1 && at_a[0] == frames::recvPacket(x.b.key, Bytes(size, 2)));
  }
  CHECK_EQ(x.relay.get(Counter::ring_packets_out), 12);
  CHECK_EQ(x.relay.get(Counter::ring_packets_in), 12);
  CHECK_EQ(x.relay.get(Counter::packets_received), x.relay.get(Counter::packets_sent));
}

TEST("forwarded packets cross shards and are not forwarded again") {
  Across x(2, true);
  const Key source = frames::keyOf(500'000);
  x.relay.send(x.a, frames::forwardPacket(source, x.b.key, Bytes(65'536, 9)));
  x.relay.settle();
  const auto got = packets(x.b);
  CHECK(got.size() == 1 && got[0] == frames::recvPacket(source, Bytes(65'536, 9)));
  const Key elsewhere = x.relay.keyOn(1, 7);
  x.relay.router(1).setJsForwarder(elsewhere, true);
  x.relay.send(x.a, frames::forwardPacket(source, elsewhere, frames::disco()));
  x.relay.settle();
  CHECK_EQ(x.relay.forwarded.size(), 0u);
  CHECK_EQ(x.relay.dropped(DropReason::unknown_dest_on_fwd, true), 1);
  CHECK_EQ(packets(x.a).size(), 1u);
}

TEST("not here comes from another shard too, three at once, to the connection that asked and not to its successor") {
  Across x;
  const Key nobody = x.relay.keyOn(1, 9);
  for (int i = 0; i < 10; ++i) x.relay.send(x.a, frames::sendPacket(nobody, frames::disco()));
  x.relay.settle();
  const auto got = packets(x.a);
  CHECK_EQ(got.size(), 3u);
  for (const Bytes& f : got) CHECK(f == frames::peerGone(nobody, PeerGoneReason::kNotHere));
  CHECK_EQ(x.relay.dropped(DropReason::unknown_dest, true), 10);

  x.relay.now_ms += 60'000;
  x.relay.send(x.a, frames::sendPacket(nobody, frames::disco()));
  x.relay.turn(0);
  x.relay.disconnect(x.a);
  x.relay.turn(0);
  Session& successor = x.relay.connect(x.relay.keyOn(0, 3));
  CHECK_EQ(successor.client->slot, 0u);
  x.relay.settle();
  CHECK_EQ(packets(successor).size(), 0u);
}

TEST("a full ring stops the reading of its sender alone, and what it holds arrives complete and in order") {
  Across x;
  Session& other = x.relay.connect(x.relay.keyOn(0, 5));
  const uint32_t sent = fillRing(x);
  CHECK(x.a.client->blocked_on == 1);
  CHECK(sent > 3 && sent < 8);
  CHECK_EQ(x.relay.get(Counter::ring_full), 1);
  CHECK(x.relay.get(Counter::held_bytes) >= 60'000);
  x.relay.send(other, frames::sendPacket(other.key, Bytes(5)));  // stays on its shard
  x.relay.turn(0);
  CHECK_EQ(packets(other).size(), 1u);
  x.relay.settle();
  const auto got = packets(x.b);
  CHECK_EQ(got.size(), sent);
  for (uint32_t n = 0; n < got.size(); ++n) CHECK(got[n] == frames::recvPacket(x.a.key, numbered(n, 60'000)));
  CHECK_EQ(x.relay.get(Counter::held_bytes), 0);
  CHECK_EQ(x.relay.dropped(), 0);
}

TEST("a frame that waited is the frame that came, forwarded ones included") {
  Across x(2, true);
  fillRing(x);
  packets(x.b);
  Session& mesh = x.relay.connect(x.relay.keyOn(0, 4), true);
  const Key source = frames::keyOf(500'000);
  x.relay.send(
      mesh, frames::forwardPacket(source, x.b.key, numbered(1, 50'000)) + frames::sendPacket(x.b.key, numbered(2, 50)));
  x.relay.turn(0);
  CHECK(mesh.client->blocked_on == 1);
  x.relay.settle();
  std::vector<Bytes> got = packets(x.b);
  std::erase_if(got,
                [&](const Bytes& f) { return std::memcmp(f.data() + kFrameHeaderSize, x.a.key.bytes, kKeySize) == 0; });
  CHECK(got.size() == 2 && got[0] == frames::recvPacket(source, numbered(1, 50'000)) &&
        got[1] == frames::recvPacket(mesh.key, numbered(2, 50)));
}

TEST("connections that wait for a ring go on in the order in which they came, small frames do not overtake") {
  Across x;
  std::vector<Session*> waiting;
  fillRing(x);
  for (uint32_t i = 0; i < 6; ++i) waiting.push_back(&x.relay.connect(x.relay.keyOn(0, 10 + i)));
  for (Session* session : waiting) {
    x.relay.send(*session, frames::sendPacket(x.b.key, numbered(7, session->client->slot % 2 == 0 ? 40 : 40000)));
    x.relay.turn(0);
    CHECK(session->client->blocked_on == 1);
  }
  x.relay.settle();
  std::vector<Key> order;
  for (const Bytes& f : packets(x.b)) {
    const Key source = Key::from(f.data() + kFrameHeaderSize);
    if (!(source == x.a.key)) order.push_back(source);
  }
  CHECK_EQ(order.size(), waiting.size());
  for (size_t i = 0; i < order.size() && i < waiting.size(); ++i) CHECK(order[i] == waiting[i]->key);
}

TEST("one that waits for a ring may leave, from any place of the line") {
  for (uint32_t leaver = 0; leaver < 4; ++leaver) {
    Across x;
    fillRing(x);
    std::vector<Session*> line{&x.a};
    for (uint32_t i = 0; i < 3; ++i) {
      line.push_back(&x.relay.connect(x.relay.keyOn(0, 10 + i)));
      x.relay.send(*line.back(), frames::sendPacket(x.b.key, numbered(i, 20'000)));
      x.relay.turn(0);
    }
    x.relay.disconnect(*line[leaver]);
    x.relay.turn(0);
    x.relay.settle();
    for (uint32_t i = 0; i < 4; ++i) CHECK(line[i]->closed() == (i == leaver));
    for (uint32_t i = 0; i < 4; ++i) CHECK(i == leaver || line[i]->client->blocked_on == kNotBlocked);
    CHECK_EQ(x.relay.get(Counter::held_bytes), 0);
  }
}

TEST("while reads hold too much, packets to full rings are dropped as queue_tail and nobody waits") {
  Across x;
  fillRing(x);
  Session& other = x.relay.connect(x.relay.keyOn(0, 5), true);
  x.relay.router(0).setDropWhenFull(true);
  x.relay.send(other, frames::sendPacket(x.b.key, Bytes(50'000)) +
                          frames::forwardPacket(x.a.key, x.b.key, frames::disco(50'000)) +
                          frames::sendPacket(x.a.key, Bytes(5)));
  x.relay.turn(0);
  x.relay.turn(0);
  x.relay.turn(0);
  CHECK(other.client->blocked_on == kNotBlocked);
  CHECK_EQ(x.relay.dropped(DropReason::queue_tail, false), 1);
  CHECK_EQ(x.relay.dropped(DropReason::queue_tail, true), 1);
  CHECK_EQ(packets(x.a).size(), 1u);
}

TEST("a key that leaves is reported once to each who received from it, on every shard, and to nobody else") {
  for (const uint32_t shards : {1u, 2u, 4u}) {
    Relay relay({.shards = shards});
    Session& gone = relay.connect(relay.keyOn(shards - 1, 0));
    std::vector<Session*> receivers, others;
    for (uint32_t i = 0; i < 20; ++i) {
      receivers.push_back(&relay.connect(relay.keyOn(i % shards, 10 + i)));
      others.push_back(&relay.connect(relay.keyOn(i % shards, 40 + i)));
      relay.send(gone, frames::sendPacket(receivers.back()->key, Bytes(5)));
      relay.send(*others.back(), frames::sendPacket(gone.key, Bytes(5)));
    }
    relay.settle();
    relay.disconnect(gone);
    relay.settle();
    for (Session* session : receivers) CHECK(heardGone(*session, gone.key));
    for (Session* session : others) CHECK(heardGone(*session, gone.key, 0));
    CHECK_EQ(relay.get(Counter::peer_gone_disconnected_frames), 20);
    Session& again = relay.connect(gone.key);  // and again when it comes, sends and leaves again
    relay.send(again, frames::sendPacket(receivers[0]->key, Bytes(5)));
    relay.settle();
    relay.disconnect(again);
    relay.settle();
    CHECK(heardGone(*receivers[0], gone.key));
    CHECK(heardGone(*receivers[1], gone.key, 0));
    CHECK_EQ(relay.violation(), "");
  }
}

TEST("a key with another connection or a forwarder left is not gone") {
  Across x;
  Session& second = x.relay.connect(x.a.key);
  x.relay.send(x.a, frames::sendPacket(x.b.key, Bytes(5)));
  x.relay.settle();
  packets(x.b);
  x.relay.disconnect(x.a);
  x.relay.settle();
  CHECK(heardGone(x.b, x.a.key, 0));
  x.relay.router(0).setJsForwarder(x.a.key, true);
  x.relay.disconnect(second);
  x.relay.settle();
  CHECK(heardGone(x.b, x.a.key, 0));
  x.relay.router(0).setJsForwarder(x.a.key, false);
  x.relay.settle();
  CHECK(heardGone(x.b, x.a.key));
}

TEST(
    "a key that leaves while the ring is full is reported as soon as the ring has room, without anything else "
    "happening") {
  Across x;
  std::vector<Session*> leavers;
  for (uint32_t i = 0; i < 3; ++i) {
    leavers.push_back(&x.relay.connect(x.relay.keyOn(0, 8 + i)));
    x.relay.send(*leavers.back(), frames::sendPacket(x.b.key, Bytes(5)));
  }
  x.relay.settle();
  // Filled to the last notice's room by packets that are dropped when they do not fit: nobody waits for the ring.
  x.relay.router(0).setDropWhenFull(true);
  for (const uint32_t size : {60'000u, 1'000u, 0u}) {
    for (const int64_t before = x.relay.dropped(); x.relay.dropped() == before;) {
      x.relay.send(x.a, frames::sendPacket(x.b.key, numbered(0, std::max(size, 4u))));
      x.relay.turn(0);
    }
  }
  packets(x.b);
  for (Session* leaver : leavers) x.relay.disconnect(*leaver);  // the ring may have room for one notice, not for three
  while (x.relay.turn(0)) {
  }
  while (x.relay.turn(1)) {
  }
  CHECK(x.relay.woken(0));  // by the room that shard 1 made
  x.relay.settle();
  const std::vector<Bytes> got = packets(x.b);
  for (const Session* leaver : leavers) {
    CHECK_EQ(std::count(got.begin(), got.end(), frames::peerGone(leaver->key, PeerGoneReason::kDisconnected)), 1);
  }
}

TEST("check() tells a wake-up that was lost from one that is on its way") {
  Across x;
  fillRing(x);
  Router& router = x.relay.router(0);
  CHECK_EQ(router.ringsWithRoomMade(), 0u);  // the other shard has read nothing yet
  while (x.relay.turn(1)) {
  }
  CHECK_EQ(router.ringsWithRoomMade(), 1u << 1);
  CHECK_EQ(router.ringsWithRoomMade() & ~x.relay.slot(0).roomBits(), 0u);  // on its way
  CHECK(router.check(0).empty());
  x.relay.slot(0).takeRoomBits();  // lost
  const uint64_t lost = router.ringsWithRoomMade() & ~x.relay.slot(0).roomBits();
  CHECK_EQ(lost, 1u << 1);
  CHECK_EQ(router.check(lost).size(), 1u);
  x.relay.slot(0).notifyRoom(1);
  x.relay.settle();
  CHECK_EQ(router.ringsWithRoomMade(), 0u);
}

TEST("ClosePeer reaches a key on any shard") {
  Across x(2, true);
  x.relay.send(x.a, frames::frame(FrameType::kClosePeer, frames::bytesOf(x.b.key)));
  x.relay.settle();
  CHECK(x.b.closed() && x.b.reason == CloseReason::peer_closed);
  CHECK(!x.a.closed());
}

TEST("work for many clients is done in bounded steps and completely") {
  Relay relay;
  Session& gone = relay.connect(frames::keyOf(1'000'000));
  constexpr uint32_t kReceivers = 3'000;
  for (uint32_t i = 1; i <= kReceivers; ++i) relay.connect(frames::keyOf(i));
  for (uint32_t i = 1; i <= kReceivers; ++i) relay.send(gone, frames::sendPacket(frames::keyOf(i), Bytes(5)));
  relay.settle();
  for (Session* session : relay.sessions()) session->received();
  relay.disconnect(gone);
  CHECK(relay.turn(0));
  const int64_t first = relay.get(Counter::peer_gone_disconnected_frames);
  CHECK(first > 0 && first <= 1024);
  relay.settle();
  CHECK_EQ(relay.get(Counter::peer_gone_disconnected_frames), kReceivers);
}

TEST("many keys that leave at once are all reported") {
  Relay relay({.shards = 2});
  Session& hub = relay.connect(relay.keyOn(0, 0));
  constexpr uint32_t kLeavers = 300;
  std::vector<Session*> leavers;
  for (uint32_t i = 0; i < kLeavers; ++i) {
    leavers.push_back(&relay.connect(frames::keyOf(700'000 + i)));
    relay.send(*leavers.back(), frames::sendPacket(hub.key, Bytes(5)));
  }
  relay.settle();
  packets(hub);
  for (Session* session : leavers) relay.disconnect(*session);
  relay.settle();
  CHECK_EQ(packets(hub).size(), kLeavers);
  CHECK_EQ(hub.client->senders.size(), 0u);
}

TEST("one who received from more keys than a client remembers hears of every key that leaves") {
  Relay relay;
  Session& hub = relay.connect(frames::keyOf(1));
  Session& sender = relay.connect(frames::keyOf(2), true);
  Session& stranger = relay.connect(frames::keyOf(3));
  for (uint32_t i = 0; i <= SenderSet::kMaxSenders; ++i) {
    relay.send(sender, frames::forwardPacket(frames::keyOf(10'000 + i), hub.key, {}));
  }
  relay.settle();
  packets(hub);
  relay.disconnect(stranger);
  relay.settle();
  CHECK(heardGone(hub, stranger.key));
}
