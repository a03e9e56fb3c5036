// Forwarders: keys that mesh links bring, packets that go out over them, and what is left when they go.
#include <string>
#include <vector>

#include "check.h"
#include "frames.h"
#include "link_model.h"

using namespace link_model;

namespace {

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
