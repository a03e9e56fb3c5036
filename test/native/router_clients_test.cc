// Clients in a router's tables: several of a key, what closes leave behind, and check() itself.
#include <algorithm>
#include <string>
#include <tuple>

#include "check.h"
#include "relay_model.h"

using namespace derplane;
using frames::Bytes;
using frames::operator+;
using model::Relay;
using model::Session;

namespace {

const Key kA = frames::keyOf(1), kB = frames::keyOf(2);

size_t packetsAt(Session& session) {
  const std::vector<Bytes> all = session.received();
  return static_cast<size_t>(std::count_if(
      all.begin(), all.end(), [](const Bytes& f) { return frameType(f.data()) == FrameType::kRecvPacket; }));
}

bool reports(Relay& relay, const std::string& part) {
  const std::vector<std::string> all = relay.router(0).check();
  return std::any_of(all.begin(), all.end(), [&](const std::string& v) { return v.find(part) != std::string::npos; });
}

}  // namespace

TEST("ServerInfo is the first thing that a client reads, whatever else was sent to it in the same turn") {
  Relay relay;
  Session& a = relay.connect(kA);
  relay.settle();
  Session& b = relay.connect(kB);
  b.kernel_room = 0;
  relay.send(a, frames::sendPacket(kB, Bytes(5)));
  relay.settle();
  b.kernel_room = UINT64_MAX;
  relay.settle();
  const auto got = b.received();
  CHECK(got.size() == 2 && got[0] == Relay::serverInfo());
}

TEST("packets go to the newest connection of a key, and to one that speaks since") {
  Relay relay;
  Session& sender = relay.connect(kB);
  Session& first = relay.connect(kA);
  Session& second = relay.connect(kA);
  const auto sendOne = [&] {
    relay.send(sender, frames::sendPacket(kA, Bytes(5)));
    relay.settle();
  };
  sendOne();
  CHECK(packetsAt(first) == 0 && packetsAt(second) == 1);
  relay.send(first, frames::frame(FrameType{0x66}, {}));  // any frame is speech
  relay.settle();
  sendOne();
  CHECK(packetsAt(first) == 1 && packetsAt(second) == 0);
  relay.disconnect(first);
  relay.settle();
  sendOne();
  CHECK_EQ(packetsAt(second), 1u);
}

TEST("a frame is speech once, at its header: its later bytes take the role from nobody") {
  Relay relay;
  Session& first = relay.connect(kA);
  Session& second = relay.connect(kA);
  const Bytes frame = frames::sendPacket(kB, Bytes(100));
  relay.send(first, Bytes(frame.begin(), frame.begin() + 10));
  relay.settle();
  CHECK(first.client->peer->active == first.client);
  relay.send(second, frames::ping(1));
  relay.settle();
  relay.send(first, Bytes(frame.begin() + 10, frame.end()));
  relay.settle();
  CHECK(first.client->peer->active == second.client);
  relay.send(first, frames::ping(1));
  relay.settle();
  CHECK(first.client->peer->active == first.client);
}

TEST("fighters: two slow frames that overlap are no fight, a frame more is") {
  Relay relay({.duplicates = DuplicatePolicy::kDisableFighters});
  Session& first = relay.connect(kA);
  Session& second = relay.connect(kA);
  relay.settle();
  const Bytes frame = frames::sendPacket(kB, Bytes(100));
  const auto half = [&](Session& session, bool begin) {
    relay.send(session, begin ? Bytes(frame.begin(), frame.begin() + 10) : Bytes(frame.begin() + 10, frame.end()));
    relay.settle();
  };
  half(first, true);
  half(second, true);
  half(first, false);
  half(second, false);
  CHECK(first.client->peer->active == second.client);
  relay.send(first, frames::ping(1));
  relay.settle();
  CHECK(first.client->peer->active == nullptr);
}

TEST("packets for a key whose connections are all disabled are dropped as dup_client, without an answer") {
  Relay relay({.duplicates = DuplicatePolicy::kDisableFighters});
  Session& sender = relay.connect(kB);
  Session& first = relay.connect(kA);
  Session& second = relay.connect(kA);
  for (Session* session : {&second, &first}) {
    relay.send(*session, frames::ping(1));
    relay.settle();
  }
  relay.send(sender, frames::sendPacket(kA, frames::disco()));
  relay.settle();
  CHECK_EQ(relay.dropped(DropReason::dup_client, true), 1);
  CHECK_EQ(sender.received().size(), 1u);
  relay.disconnect(second);
  relay.settle();
  relay.send(sender, frames::sendPacket(kA, Bytes(5)));
  relay.settle();
  CHECK_EQ(packetsAt(first), 1u);
}

TEST("a closed client keeps its own key though another took its place in the same turn") {
  Relay relay;
  Session& a = relay.connect(kA);
  relay.settle();
  relay.disconnect(a);
  Session& b = relay.connect(kB);
  relay.settle();  // the model checks each closing client's key
  CHECK(a.closed() && !b.closed());
  CHECK(b.client->peer->key == kB);
}

TEST("a destination that left and came back, or gave its place to another key, is looked up anew") {
  Relay relay;
  Session& a = relay.connect(kA);
  Session* b = &relay.connect(kB);
  const auto sendOne = [&] {
    relay.send(a, frames::sendPacket(kB, Bytes(5)));
    relay.settle();
  };
  sendOne();
  CHECK_EQ(packetsAt(*b), 1u);
  relay.disconnect(*b);
  relay.settle();
  Session& other = relay.connect(frames::keyOf(3));  // most likely in the place of kB
  sendOne();
  CHECK_EQ(packetsAt(other), 0u);
  b = &relay.connect(kB);
  sendOne();
  CHECK_EQ(packetsAt(*b), 1u);
  CHECK_EQ(relay.dropped(), 1);
}

TEST("a client may be closed twice, the first reason counts") {
  Relay relay;
  Session& a = relay.connect(kA);
  relay.disconnect(a, CloseReason::reset);
  relay.disconnect(a, CloseReason::eof);
  relay.settle();
  CHECK(a.reason == CloseReason::reset);
  CHECK_EQ(relay.get(Counter::current_connections), 0);
}

TEST("a client that never reads control frames is closed, its memory with it") {
  Relay relay;
  Session& hub = relay.connect(kA);
  hub.kernel_room = 0;
  std::vector<Session*> others;
  for (uint32_t i = 0; i <= kMaxControlBytes / kPeerGoneFrameSize; ++i) {
    Session& other = relay.connect(frames::keyOf(100 + i));
    relay.send(other, frames::sendPacket(kA, Bytes(5)));
    relay.turn(0);
    others.push_back(&other);
  }
  for (Session* other : others) relay.disconnect(*other);
  relay.settle();
  CHECK(hub.closed());
  CHECK(hub.reason == CloseReason::control_overflow);
  CHECK_EQ(relay.get(Counter::queue_bytes), 0);
}

TEST("gauges count local keys, forwarded keys and connections") {
  Relay relay;
  relay.connect(kA, false, true);
  relay.connect(kA);
  Session& b = relay.connect(kB);
  relay.router(0).setJsForwarder(kB, true);
  relay.router(0).setJsForwarder(frames::keyOf(9), true);
  relay.router(0).setJsForwarder(frames::keyOf(9), true);
  CHECK_EQ(relay.get(Counter::current_connections), 3);
  CHECK_EQ(relay.get(Counter::clients_local), 2);
  CHECK_EQ(relay.get(Counter::clients_total), 3);
  CHECK_EQ(relay.get(Counter::current_notideal_connections), 1);
  relay.disconnect(b);
  relay.settle();
  CHECK_EQ(relay.get(Counter::clients_local), 1);
  CHECK_EQ(relay.get(Counter::clients_total), 3);
  relay.router(0).setJsForwarder(kB, false);
  relay.router(0).setJsForwarder(kB, false);
  CHECK_EQ(relay.get(Counter::clients_total), 2);
}

TEST("check() finds every broken gauge and table") {
  Relay relay;
  Session& a = relay.connect(kA);
  relay.connect(kA);
  relay.settle();
  CHECK(relay.router(0).check().empty());
  for (const Counter c :
       {Counter::current_connections, Counter::clients_local, Counter::clients_total, Counter::current_dup_client_keys,
        Counter::current_dup_client_conns, Counter::current_home_connections, Counter::current_notideal_connections,
        Counter::queue_bytes}) {
    relay.router(0).counters().add(c);
    char name[64];
    counterName(static_cast<uint32_t>(c), name, sizeof name);
    CHECK(reports(relay, name));
    relay.router(0).counters().add(c, -1);
  }
  ++relay.router(0).queues().bytes;
  CHECK(reports(relay, "memory of send queues"));
  --relay.router(0).queues().bytes;
  Peer& peer = *a.client->peer;
  const auto broken = [&](auto&& damage, const char* part) {
    const auto [hash, active, connections, count, live] =
        std::tuple{peer.hash, peer.active, peer.connections, peer.connection_count, peer.live};
    const uint32_t generation = a.client->generation, blocked_on = a.client->blocked_on;
    damage();
    CHECK(reports(relay, part));
    std::tie(peer.hash, peer.active, peer.connections, peer.connection_count, peer.live) =
        std::tuple{hash, active, connections, count, live};
    a.client->generation = generation;
    a.client->blocked_on = blocked_on;
    a.client->disabled = a.client->closing = false;
    CHECK(relay.router(0).check().empty());
  };
  broken([&] { ++peer.connection_count; }, "connections of a key");
  broken([&] { peer.live = false; }, "is not live");
  broken([&] { ++peer.hash; }, "hash");
  broken(
      [&] {
        peer.active = nullptr;
        peer.connections = a.client;
        peer.connection_count = 1;
      },
      "the only connection");
  broken(
      [&] {
        peer.active = a.client;
        a.client->disabled = true;
      },
      "is disabled");
  broken([&] { a.client->closing = true; }, "closing connection");
  broken([&] { ++a.client->generation; }, "does not know its slot");
  broken([&] { a.client->blocked_on = 3; }, "waits for a ring");
}
