// Routers joined by real rings, in one thread; unlike relay_model.h this knows mesh links, and kernels take everything.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "frames.h"
#include "native/core/router.h"

namespace link_model {

using namespace derplane;
using frames::Bytes;
using frames::operator+;

inline constexpr uint32_t kRemote = 1'000'000;  // numbers of keys of other relays begin here

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

  Router& router(uint32_t shard) { return *shards_[shard]->router; }
  // One turn of one shard, while the others sleep.
  bool turnOf(uint32_t shard) { return turn(*shards_[shard]); }
  // Reads as a shard does: not while the link has to wait. Settles nothing.
  bool read(End& end, const Bytes& bytes) {
    Router& router = *shards_[end.shard]->router;
    if (end.client->waits() || !router.mayRead(*end.client)) return false;
    const auto size = static_cast<uint32_t>(bytes.size());
    uint8_t* at = router.arena().take(size);
    std::memcpy(at, bytes.data(), size);
    CHECK_EQ(router.consume(*end.client, at, size).consumed, size);
    return true;
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
    while (router.takeResumed() != nullptr) busy = true;
    while (Client* client = router.takeTouched()) {
      busy = true;
      flush(router, *client);
    }
    busy = router.publish() != 0 || busy;
    for (uint32_t from = 0; from < count_; ++from) {
      if (shard.rings_in[from].valid()) shard.rings_in[from].release([] {});  // every turn looks at all rings
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

inline Bytes present(const Key& key, uint32_t size = kPeerPresentFrameSize - kFrameHeaderSize) {
  Bytes body = frames::bytesOf(key);
  body.resize(size, 1);
  return frames::frame(FrameType::kPeerPresent, body);
}

inline Bytes gone(const Key& key, PeerGoneReason reason = PeerGoneReason::kDisconnected) {
  return frames::peerGone(key, reason);
}

// The n-th link of a shard.
inline End& linkOn(Region& region, uint32_t shard, uint32_t n = 0) {
  return region.link(region.keyOn(shard, 1000 + n));
}

inline const Bytes kPacket(100, 0xab);

inline void expectForwarded(Region& region, End& sender, End& link, const Key& to) {
  region.feed(sender, frames::sendPacket(to, kPacket));
  CHECK(link.received() == std::vector<Bytes>{frames::forwardPacket(sender.key, to, kPacket)});
}

}  // namespace link_model
