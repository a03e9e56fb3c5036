// Forwarders: keys that mesh links bring, packets that go out over them, and what is left when they go. Routers joined
// by real rings, in one thread; unlike relay_model.h this knows links, and kernels take everything.
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "frames.h"
#include "native/core/router.h"

using namespace derplane;
using frames::Bytes;
using frames::operator+;

namespace {

constexpr uint32_t kRemote = 1'000'000;  // numbers of keys of other relays begin here

// The far end of a client or of a mesh link.
struct End {
  Key key;
  uint32_t shard = 0;
  Client* client = nullptr;  // null: closed
  CloseReason reason = CloseReason::eof;
  frames::Reader inbox;
  uint32_t pieces = 0;  // of memory that its frames came from

  std::vector<Bytes> received() { return inbox.all(); }
};

class Region {
 public:
  explicit Region(uint32_t shards) : count_(shards) {
    for (uint32_t i = 0; i < shards; ++i) {
      shards_.push_back(std::make_unique<Shard>());
      shards_[i]->router = std::make_unique<Router>(RouterConfig{.seed = seed_, .shard = i, .shards = shards},
                                                    Counters(shards_[i]->values), *shards_[i]);
      shards_[i]->router->setNow(now_ms);
    }
    for (uint32_t from = 0; from < shards; ++from) {
      for (uint32_t to = 0; to < shards; ++to) {
        if (from == to) continue;
        memory_.push_back(std::make_unique<Bytes>(kMinRingBytes + kRingOverhead));
        const RingMemory ring = RingMemory::in(memory_.back()->data(), memory_.back()->size());
        shards_[from]->router->setRing(to, RingProducer(ring));
        shards_[to]->rings_in[from] = RingConsumer(ring);
      }
    }
  }

  // The n-th key of `shard`; those of other relays are numbered apart.
  Key keyOn(uint32_t shard, uint32_t n, uint32_t base = 1) const {
    for (uint32_t i = base;; ++i) {
      const Key key = frames::keyOf(i);
      if (shardOf(key) == shard && n-- == 0) return key;
    }
  }
  Key remoteOn(uint32_t shard, uint32_t n) const { return keyOn(shard, n, kRemote); }

  End& connect(const Key& key, bool mesh = false) { return enter(key, mesh, false); }
  End& link(const Key& relay) { return enter(relay, false, true); }

  void feed(End& end, const Bytes& bytes) { CHECK(feedSome(end, bytes).empty()); }

  // Returns what was not consumed, the beginning of a frame.
  Bytes feedSome(End& end, const Bytes& bytes) {
    Router& router = *shards_[end.shard]->router;
    const auto size = static_cast<uint32_t>(bytes.size());
    const uint32_t room = router.frontRoom(*end.client);
    uint8_t* at = router.arena().take(room + size) + room;
    std::memcpy(at, bytes.data(), size);
    const ParseResult result = router.consume(*end.client, at, size, room);
    settle();
    return Bytes(bytes.begin() + result.consumed, bytes.end());
  }

  void close(End& end) {
    shards_[end.shard]->router->close(*end.client, CloseReason::eof);
    settle();
  }

  void advance(uint64_t milliseconds) {
    now_ms += milliseconds;
    for (auto& shard : shards_) {
      shard->router->setNow(now_ms);
      shard->router->tick();
    }
    settle();
  }

  void settle() {
    for (bool busy = true; busy;) {
      busy = false;
      for (auto& shard : shards_) busy = turn(*shard) || busy;
    }
    for (auto& shard : shards_) {
      for (const std::string& violation : shard->router->check()) CHECK_EQ(violation, "");
    }
  }

  int64_t get(Counter counter) const {
    int64_t sum = 0;
    for (const auto& shard : shards_) sum += Counters(shard->values).get(counter);
    return sum;
  }
  int64_t dropped(DropReason reason, bool disco) const {
    int64_t sum = 0;
    for (const auto& shard : shards_) sum += Counters(shard->values).dropped(reason, disco);
    return sum;
  }

  uint64_t now_ms = 1'000'000;
  std::vector<size_t> links_up;  // keys that each reported link brought

 private:
  struct Shard final : RouterEvents {
    bool forwardToControl(const Key&, const Key&, const uint8_t*, uint32_t) override { return false; }
    void linkUp(const Client&, size_t keys) override { region->links_up.push_back(keys); }

    Region* region = nullptr;
    int64_t values[kCounterCount] = {};
    std::unique_ptr<Router> router;
    RingConsumer rings_in[kMaxShards];
  };

  uint32_t shardOf(const Key& key) const { return shardOfHash(hashKey(seed_, key.bytes), count_); }

  End& enter(const Key& key, bool mesh, bool is_link) {
    auto end = std::make_unique<End>();
    end->key = key;
    end->shard = shardOf(key);
    Shard& shard = *shards_[end->shard];
    shard.region = this;
    Router::Adoption adoption;
    adoption.key = key;
    adoption.mesh = mesh;
    adoption.id = ends_.size();
    const Bytes first = frames::frame(is_link ? FrameType::kWatchConns : FrameType::kServerInfo, {});
    const auto size = static_cast<uint32_t>(first.size());
    end->client = is_link ? shard.router->adoptLink(adoption, first.data(), size)
                          : shard.router->adopt(adoption, first.data(), size);
    ends_.push_back(std::move(end));
    settle();
    CHECK(ends_.back()->received() == std::vector<Bytes>{first});
    return *ends_.back();
  }

  bool turn(Shard& shard) {
    Router& router = *shard.router;
    bool busy = false;
    for (uint32_t from = 0; from < count_; ++from) {
      RingConsumer& ring = shard.rings_in[from];
      if (!ring.valid() || ring.empty()) continue;
      router.takeRing(from, ring, 1024);
      busy = true;
    }
    busy = router.background() || busy;
    while (Client* client = router.takeTouched()) {
      busy = true;
      flush(router, *client);
    }
    busy = router.publish() != 0 || busy;
    for (uint32_t from = 0; from < count_; ++from) {
      if (shard.rings_in[from].valid()) shard.rings_in[from].release();
    }
    while (Client* client = router.takeClosing()) {
      busy = true;
      ends_[client->id]->reason = client->close_reason;
      ends_[client->id]->client = nullptr;
      router.destroy(client);
    }
    router.endTurn();
    return busy;
  }

  void flush(Router& router, Client& client) {
    if (client.closing) return;
    while (!client.queue.empty()) {
      iovec iov[16];
      const uint32_t count = client.queue.gather(router.queues(), iov, 16);
      uint64_t taken = 0;
      ends_[client.id]->pieces += count;
      for (uint32_t i = 0; i < count; ++i) {
        ends_[client.id]->inbox.feed(static_cast<const uint8_t*>(iov[i].iov_base), iov[i].iov_len);
        taken += iov[i].iov_len;
      }
      client.queue.advance(router.queues(), taken);
    }
  }

  uint32_t count_;
  HashSeed seed_{0x0123456789abcdef, 0xfedcba9876543210};
  std::vector<std::unique_ptr<Bytes>> memory_;
  std::vector<std::unique_ptr<Shard>> shards_;
  std::vector<std::unique_ptr<End>> ends_;
};

Bytes present(const Key& key, uint32_t size = kPeerPresentFrameSize - kFrameHeaderSize) {
  Bytes body = frames::bytesOf(key);
  body.resize(size, 1);
  return frames::frame(FrameType::kPeerPresent, body);
}

Bytes gone(const Key& key, PeerGoneReason reason = PeerGoneReason::kDisconnected) {
  return frames::peerGone(key, reason);
}

const Bytes kPacket(100, 0xab);

// The n-th link of a shard.
End& linkOn(Region& region, uint32_t shard, uint32_t n = 0) { return region.link(region.keyOn(shard, 1000 + n)); }

void expectForwarded(Region& region, End& sender, End& link, const Key& to) {
  region.feed(sender, frames::sendPacket(to, kPacket));
  CHECK(link.received() == std::vector<Bytes>{frames::forwardPacket(sender.key, to, kPacket)});
}

// Runs `test` for every way in which a sender, a key and a link can lie on two shards.
template <typename Test>
void everywhere(Test test) {
  test(1, 0, 0, 0);
  for (uint32_t where = 0; where < 8; ++where) {
    check::note("placement " + std::to_string(where));
    test(2, where & 1, (where >> 1) & 1, (where >> 2) & 1);
  }
  check::note("");
}

}  // namespace

TEST("packets for a key that a link reported go out over it, whole and in order") {
  everywhere([](uint32_t shards, uint32_t sender_shard, uint32_t key_shard, uint32_t link_shard) {
    Region region(shards);
    End& sender = region.connect(region.keyOn(sender_shard, 0));
    End& link = linkOn(region, link_shard);
    const Key remote = region.remoteOn(key_shard, 0);
    region.feed(link, present(remote));
    CHECK_EQ(region.get(Counter::clients_total), 2);
    CHECK_EQ(region.get(Counter::clients_local), 1);
    Bytes all;
    std::vector<Bytes> want;
    for (const uint32_t size : {0u, 1u, 62u, 1400u, uint32_t{kMaxPacketSize}}) {
      const Bytes packet(size, static_cast<uint8_t>(size));
      all = all + frames::sendPacket(remote, packet);
      want.push_back(frames::forwardPacket(sender.key, remote, packet));
    }
    region.feed(sender, all);
    CHECK(link.received() == want);
    CHECK_EQ(region.get(Counter::packets_forwarded_out), 5);
    CHECK_EQ(region.get(Counter::packets_received), 5);
    CHECK(sender.received().empty());
  });
}

TEST("packets of one read for keys of one link leave as one piece") {
  Region region(1);
  End& sender = region.connect(region.keyOn(0, 0));
  End& link = linkOn(region, 0);
  const Key remote = region.remoteOn(0, 0);
  const Key other = region.remoteOn(0, 1);
  region.feed(link, present(remote) + present(other));
  expectForwarded(region, sender, link, remote);  // from now on there is room in front
  link.pieces = 0;
  Bytes all;
  std::vector<Bytes> want;
  for (uint32_t n = 0; n < 64; ++n) {
    const Bytes packet(n == 5 ? 0 : 1000 + n, static_cast<uint8_t>(n));
    const Key& to = n % 3 == 0 ? other : remote;
    all = all + frames::sendPacket(to, packet);
    want.push_back(frames::forwardPacket(sender.key, to, packet));
  }
  region.feed(sender, all);
  CHECK(link.received() == want);
  CHECK_EQ(link.pieces, 1u);
}

TEST("what a read holds between packets for another relay, and beyond the room in front of it, stays whole") {
  everywhere([](uint32_t shards, uint32_t sender_shard, uint32_t key_shard, uint32_t link_shard) {
    Region region(shards);
    End& sender = region.connect(region.keyOn(sender_shard, 0));
    End& local = region.connect(region.keyOn(key_shard, 1));
    End& link = linkOn(region, link_shard, 0);
    End& second = linkOn(region, sender_shard, 1);
    const Key remote = region.remoteOn(key_shard, 0);
    const Key elsewhere = region.remoteOn(sender_shard, 1);
    region.feed(link, present(remote));
    region.feed(second, present(elsewhere));
    // By bits of `order`: what stands at which place of the read, after some packets that move to the front.
    for (uint32_t order = 0; order < 256; ++order) {
      expectForwarded(region, sender, link, remote);
      Bytes all;
      std::vector<Bytes> over_link, over_second, here;
      const auto add = [&](uint32_t kind, uint32_t size) {
        const Bytes packet(size, static_cast<uint8_t>(order + over_link.size() + here.size()));
        const Key& to = kind == 0 ? remote : kind == 1 ? elsewhere : local.key;
        if (kind == 3) {
          all = all + frames::frame(FrameType{0x66}, packet);
        } else {
          all = all + frames::sendPacket(to, packet);
          if (kind == 2) here.push_back(frames::recvPacket(sender.key, packet));
          if (kind < 2) (kind == 0 ? over_link : over_second).push_back(frames::forwardPacket(sender.key, to, packet));
        }
      };
      for (uint32_t n = 0; n < order % 5; ++n) add(0, 1 + 40 * n);
      for (uint32_t place = 0; place < 8; place += 2) add(order >> place & 3, 100 * place);
      for (uint32_t n = 0; n < 70; ++n) add(0, n);
      region.feed(sender, all);
      CHECK(link.received() == over_link);
      CHECK(second.received() == over_second);
      CHECK(local.received() == here);
    }
  });
}

TEST("packets that come over links mixed reach their keys from their senders, also after either changed") {
  everywhere([](uint32_t shards, uint32_t mesh_shard, uint32_t key_shard, uint32_t other_shard) {
    Region region(shards);
    End& mesh = region.connect(region.keyOn(mesh_shard, 0), true);
    End& near = region.connect(region.keyOn(key_shard, 1));
    End& far = region.connect(region.keyOn(other_shard, 2));
    const Key from[] = {frames::keyOf(kRemote), frames::keyOf(kRemote + 1)};
    const auto send = [&](std::vector<Bytes>& to_near, std::vector<Bytes>& to_far) {
      Bytes all;
      for (uint32_t n = 0; n < 16; ++n) {
        const Bytes packet(100 + n, static_cast<uint8_t>(n));
        const Key& source = from[n >> 1 & 1];
        const bool is_near = (n >> 2 & 1) != 0;
        all = all + frames::forwardPacket(source, is_near ? near.key : far.key, packet);
        (is_near ? to_near : to_far).push_back(frames::recvPacket(source, packet));
      }
      region.feed(mesh, all);
    };
    std::vector<Bytes> to_near, to_far;
    send(to_near, to_far);
    CHECK(near.received() == to_near);
    CHECK(far.received() == to_far);
    region.close(far);
    const Key left = far.key;
    std::vector<Bytes> again, lost;
    send(again, lost);
    CHECK(near.received() == again);
    CHECK_EQ(region.dropped(DropReason::unknown_dest_on_fwd, false), static_cast<int64_t>(lost.size()));
    End& back = region.connect(left);
    std::vector<Bytes> once_more, anew;
    send(once_more, anew);
    CHECK(back.received() == anew);
    CHECK(near.received() == once_more);
  });
}

TEST("a ForwardPacket from the zero key ends the mesh peer, be it the first or after others") {
  for (const bool first : {true, false}) {
    Region region(1);
    End& mesh = region.connect(region.keyOn(0, 0), true);
    End& near = region.connect(region.keyOn(0, 1));
    if (!first) region.feed(mesh, frames::forwardPacket(frames::keyOf(kRemote), near.key, kPacket));
    region.feed(mesh, frames::forwardPacket(Key{}, near.key, kPacket));
    CHECK(mesh.client == nullptr);
    CHECK_EQ(mesh.reason, CloseReason::bad_forward_source);
    CHECK_EQ(near.received().size(), first ? 0u : 1u);
  }
}

TEST("a key that the link reports gone is unknown again, for either reason") {
  everywhere([](uint32_t shards, uint32_t sender_shard, uint32_t key_shard, uint32_t link_shard) {
    for (const PeerGoneReason reason : {PeerGoneReason::kDisconnected, PeerGoneReason::kNotHere}) {
      Region region(shards);
      End& sender = region.connect(region.keyOn(sender_shard, 0));
      End& link = linkOn(region, link_shard);
      const Key remote = region.remoteOn(key_shard, 0);
      region.feed(link, present(remote));
      region.feed(link, gone(remote, reason));
      CHECK_EQ(region.get(Counter::clients_total), 1);
      region.feed(sender, frames::sendPacket(remote, frames::disco()));
      CHECK(link.received().empty());
      CHECK_EQ(region.dropped(DropReason::unknown_dest, true), 1);
      CHECK(sender.received() == std::vector<Bytes>{gone(remote, PeerGoneReason::kNotHere)});
    }
  });
}

TEST("of several links the one that reported a key first gets its packets, then the next") {
  everywhere([](uint32_t shards, uint32_t sender_shard, uint32_t key_shard, uint32_t link_shard) {
    Region region(shards);
    End& sender = region.connect(region.keyOn(sender_shard, 0));
    End& first = linkOn(region, link_shard, 0);
    End& second = linkOn(region, shards - 1 - link_shard, 1);
    End& third = linkOn(region, link_shard, 2);
    const Key remote = region.remoteOn(key_shard, 0);
    for (End* link : {&first, &second, &third, &first}) region.feed(*link, present(remote));
    CHECK_EQ(region.get(Counter::multiforwarder_created), 1);
    CHECK_EQ(region.get(Counter::clients_total), 2);
    expectForwarded(region, sender, first, remote);
    region.feed(first, gone(remote));
    expectForwarded(region, sender, second, remote);
    // One that comes back is the last.
    region.feed(first, present(remote));
    region.feed(second, gone(remote));
    expectForwarded(region, sender, third, remote);
    CHECK_EQ(region.get(Counter::multiforwarder_deleted), 0);
    region.feed(third, gone(remote));
    CHECK_EQ(region.get(Counter::multiforwarder_deleted), 1);
    expectForwarded(region, sender, first, remote);
    CHECK(second.received().empty() && third.received().empty());
  });
}

TEST("a link that ends takes all its forwarders along, and whoever received from those keys is told") {
  everywhere([](uint32_t shards, uint32_t receiver_shard, uint32_t, uint32_t link_shard) {
    Region region(shards);
    End& receiver = region.connect(region.keyOn(receiver_shard, 0));
    End& mesh = region.connect(region.keyOn(0, 1), true);
    End& link = linkOn(region, link_shard, 0);
    End& other = linkOn(region, link_shard, 1);
    constexpr uint32_t kKeys = 3000;  // more than a step of the work
    Bytes all;
    for (uint32_t n = 0; n < kKeys; ++n) all = all + present(frames::keyOf(kRemote + n));
    region.feed(link, all);
    const Key kept = frames::keyOf(kRemote), lost = frames::keyOf(kRemote + 1);
    region.feed(other, present(kept));
    for (const Key& source : {kept, lost}) region.feed(mesh, frames::forwardPacket(source, receiver.key, kPacket));
    CHECK_EQ(receiver.received().size(), 2u);
    CHECK_EQ(region.get(Counter::clients_total), kKeys + 2);
    region.close(link);
    CHECK_EQ(region.get(Counter::clients_total), 3);
    CHECK(receiver.received() == std::vector<Bytes>{gone(lost)});
    CHECK_EQ(region.get(Counter::multiforwarder_deleted), 1);
    expectForwarded(region, receiver, other, kept);
  });
}

TEST("a key that is connected here is never forwarded, whatever links report") {
  everywhere([](uint32_t shards, uint32_t sender_shard, uint32_t key_shard, uint32_t link_shard) {
    Region region(shards);
    End& sender = region.connect(region.keyOn(sender_shard, 0));
    End& link = linkOn(region, link_shard);
    End& local = region.connect(region.remoteOn(key_shard, 0));
    region.feed(link, present(local.key));
    CHECK_EQ(region.get(Counter::clients_total), 2);
    region.feed(sender, frames::sendPacket(local.key, kPacket));
    CHECK(local.received() == std::vector<Bytes>{frames::recvPacket(sender.key, kPacket)});
    // It was forged or is out of date: taking it back harms the local client no more.
    region.feed(link, gone(local.key));
    region.feed(sender, frames::sendPacket(local.key, kPacket));
    CHECK_EQ(local.received().size(), 1u);
    region.feed(link, present(local.key));
    const Key key = local.key;
    region.close(local);
    expectForwarded(region, sender, link, key);
    CHECK(sender.received().empty());
  });
}

TEST("a packet that was forwarded to us is never forwarded again") {
  everywhere([](uint32_t shards, uint32_t mesh_shard, uint32_t key_shard, uint32_t link_shard) {
    Region region(shards);
    End& mesh = region.connect(region.keyOn(mesh_shard, 0), true);
    End& link = linkOn(region, link_shard);
    const Key remote = region.remoteOn(key_shard, 0);
    region.feed(link, present(remote));
    region.feed(mesh, frames::forwardPacket(frames::keyOf(7), remote, frames::disco()));
    CHECK(link.received().empty());
    CHECK_EQ(region.dropped(DropReason::unknown_dest_on_fwd, true), 1);
    // So the other relay unlearns the key.
    CHECK(mesh.received() == std::vector<Bytes>{gone(remote, PeerGoneReason::kNotHere)});
  });
}

TEST("removals that match nothing count where the key is known, and change nothing") {
  for (const uint32_t shards : {1u, 2u}) {
    Region region(shards);
    End& link = linkOn(region, 0, 0);
    End& other = linkOn(region, shards - 1, 1);
    const Key remote = region.remoteOn(shards - 1, 0);
    End& local = region.connect(region.keyOn(shards - 1, 0));
    region.feed(link, gone(remote));
    CHECK_EQ(region.get(Counter::packet_forwarder_delete_other_value), 0);
    region.feed(link, gone(local.key));
    CHECK_EQ(region.get(Counter::packet_forwarder_delete_other_value), 1);
    region.feed(other, present(remote));
    region.feed(link, gone(remote));
    CHECK_EQ(region.get(Counter::packet_forwarder_delete_other_value), 2);
    expectForwarded(region, local, other, remote);
  }
}

TEST("links read what they know, skip what they do not, and answer pings, however the bytes are cut") {
  const Key longer = frames::keyOf(kRemote), shortest = frames::keyOf(kRemote + 1);
  const Bytes bytes = present(longer, 500) + frames::frame(FrameType::kPeerPresent, Bytes(31)) +
                      frames::frame(FrameType::kPeerGone, Bytes(31)) + frames::frame(FrameType{0x66}, Bytes(3000)) +
                      frames::frame(FrameType::kRecvPacket, Bytes(70)) +
                      frames::frame(FrameType::kServerKey, Bytes(40)) + frames::frame(FrameType::kKeepAlive, {}) +
                      frames::frame(FrameType::kSendPacket, Bytes(10)) + frames::frame(FrameType::kPing, Bytes(7)) +
                      present(shortest, kKeySize) + frames::ping(77);
  for (size_t cut = 1; cut < bytes.size(); cut += cut < 700 ? 1 : 37) {
    Region region(1);
    End& sender = region.connect(frames::keyOf(1));
    End& link = linkOn(region, 0);
    const auto middle = bytes.begin() + static_cast<ptrdiff_t>(cut);
    const Bytes rest = region.feedSome(link, Bytes(bytes.begin(), middle));
    region.feed(link, rest + Bytes(middle, bytes.end()));
    CHECK(link.received() == std::vector<Bytes>{frames::pong(77)});
    CHECK_EQ(region.get(Counter::clients_total), 3);
    expectForwarded(region, sender, link, longer);
    expectForwarded(region, sender, link, shortest);
  }
}

TEST("a frame over 1 MiB ends the link, one of 1 MiB does not") {
  Region region(1);
  Bytes header(kFrameHeaderSize);
  End& fine = linkOn(region, 0, 0);
  putFrameHeader(header.data(), FrameType{0x66}, 1 << 20);
  region.feed(fine, header);
  CHECK(fine.client != nullptr);
  End& bad = linkOn(region, 0, 1);
  region.feed(bad, present(frames::keyOf(kRemote)));
  putFrameHeader(header.data(), FrameType{0x66}, (1 << 20) + 1);
  region.feed(bad, header);
  CHECK(bad.client == nullptr && bad.reason == CloseReason::link_frame_too_big);
  CHECK_EQ(region.get(Counter::clients_total), 0);
}

TEST("a second after its adoption a link says once how many keys it brought") {
  Region region(2);
  End& link = linkOn(region, 0);
  Bytes all;
  for (uint32_t n = 0; n < 10; ++n) all = all + present(frames::keyOf(kRemote + n));
  region.feed(link, all + gone(frames::keyOf(kRemote)));
  region.advance(500);
  CHECK(region.links_up.empty());
  region.advance(1000);
  CHECK(region.links_up == std::vector<size_t>{9});
  for (int n = 0; n < 10; ++n) {
    region.feed(link, frames::frame(FrameType::kKeepAlive, {}));
    region.advance(30'000);
  }
  CHECK_EQ(region.links_up.size(), 1u);
}

TEST("a link that brings nothing for 120 s ends, one that brings anything does not") {
  Region region(1);
  End& silent = linkOn(region, 0, 0);
  End& lively = linkOn(region, 0, 1);
  for (int n = 0; n < 11; ++n) {
    CHECK(silent.client != nullptr);
    region.advance(10'000);
    region.feed(lively, frames::frame(FrameType::kKeepAlive, {}));
  }
  for (int n = 0; n < 6; ++n) {
    region.advance(10'000);
    region.feed(lively, frames::frame(FrameType::kKeepAlive, {}));
  }
  CHECK(silent.client == nullptr && silent.reason == CloseReason::link_timeout);
  CHECK(lively.client != nullptr);
}

TEST("a link is no client: no gauge counts it, no key finds it, its end is nobody's") {
  Region region(2);
  for (const uint32_t shard : {0u, 1u}) {
    End& link = linkOn(region, shard, shard);
    End& sender = region.connect(region.keyOn(shard, 0));
    CHECK_EQ(region.get(Counter::current_connections), 1);
    CHECK_EQ(region.get(Counter::clients_total), 1);
    region.feed(sender, frames::sendPacket(link.key, frames::disco()));
    CHECK(sender.received() == std::vector<Bytes>{gone(link.key, PeerGoneReason::kNotHere)});
    region.close(link);
    CHECK(sender.received().empty());
    region.close(sender);
  }
}

TEST("watchers hear of clients, not of keys that links bring") {
  Region region(2);
  End& watcher = region.connect(region.keyOn(0, 0), true);
  region.feed(watcher, frames::frame(FrameType::kWatchConns, {}));
  CHECK_EQ(watcher.received().size(), 1u);
  for (const uint32_t shard : {0u, 1u}) {
    End& link = linkOn(region, shard, shard);
    const Key remote = region.remoteOn(1 - shard, 0);
    region.feed(link, present(remote));
    region.feed(link, gone(remote));
    region.close(link);
  }
  CHECK(watcher.received().empty());
}
