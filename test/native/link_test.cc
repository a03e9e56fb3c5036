// Links to other relays themselves: what they read, when they end, and what they are not.
#include <string>
#include <vector>

#include "check.h"
#include "frames.h"
#include "link_model.h"

using namespace link_model;

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

TEST("a link that reports keys come and gone without end is not read while lists are long") {
  for (const uint32_t shards : {1u, 2u, 3u}) {
    Region region(shards);
    End& link = linkOn(region, 0);
    uint32_t next = kRemote, refused = 0;
    size_t longest = 0;
    for (uint32_t round = 0; round < 3000; ++round) {
      Bytes burst;
      for (uint32_t n = 0; n < 200; ++n)
        burst = burst + present(frames::keyOf(next + n)) + gone(frames::keyOf(next + n));
      if (region.read(link, burst)) {
        next += 200;
      } else {
        ++refused;
      }
      // The link's shard runs alone most of the time; the last shard runs least.
      region.turnOf(0);
      for (uint32_t shard = 1; shard < shards; ++shard) {
        if (round % (20 * shard) == 0) region.turnOf(shard);
      }
      for (uint32_t shard = 0; shard < shards; ++shard) {
        longest = std::max(longest, region.router(shard).waitingNotices());
      }
    }
    CHECK(longest <= size_t{4} * shards * Router::kCrowd);
    if (shards > 1) CHECK(refused > 0);
    region.settle();
    CHECK(!link.client->paused);
    for (uint32_t shard = 0; shard < shards; ++shard) CHECK_EQ(region.router(shard).waitingNotices(), 0u);
    CHECK_EQ(region.get(Counter::clients_total), 0);
    region.feed(link, present(region.remoteOn(0, 0)));
    CHECK_EQ(region.get(Counter::clients_total), 1);
  }
}

TEST("the keys of a link that ends are taken back in bounded steps, over long lists too") {
  for (const uint32_t shards : {1u, 3u}) {
    Region region(shards);
    End& link = linkOn(region, 0);
    constexpr uint32_t kKeys = 50'000;
    for (uint32_t n = 0; n < kKeys; n += 1000) {
      Bytes burst;
      for (uint32_t i = 0; i < 1000; ++i) burst = burst + present(frames::keyOf(kRemote + n + i));
      region.feed(link, burst);
    }
    CHECK_EQ(region.get(Counter::clients_total), kKeys);
    region.router(0).close(*link.client, CloseReason::eof);
    int64_t before = kKeys;
    for (uint32_t turns = 0; turns < 1000; ++turns) {
      region.turnOf(0);
      const int64_t now = region.get(Counter::clients_total);
      CHECK(before - now <= 1024);
      before = now;
      CHECK(region.router(0).waitingNotices() <= size_t{2} * shards * Router::kCrowd);
    }
    region.settle();
    CHECK_EQ(region.get(Counter::clients_total), 0);
  }
}
