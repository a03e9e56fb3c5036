#include "native/core/peer_table.h"

#include <map>
#include <string>

#include "check.h"

using namespace derplane;

namespace {

Key keyOf(uint32_t n) {
  Key key;
  std::memcpy(key.bytes, &n, sizeof n);
  return key;
}

}  // namespace

TEST("a key is found under its hash and its bytes only") {
  PeerTable table;
  const Key a = keyOf(1), b = keyOf(2);
  CHECK(table.find(7, a.bytes) == nullptr);
  Peer* peer = table.findOrAdd(7, a.bytes);
  CHECK(table.findOrAdd(7, a.bytes) == peer);
  CHECK(table.find(7, a.bytes) == peer);
  CHECK(table.find(7, b.bytes) == nullptr);
  CHECK(table.find(8, a.bytes) == nullptr);
  Peer* other = table.findOrAdd(7, b.bytes);  // the same hash: another key all the same
  CHECK(other != peer);
  CHECK_EQ(table.size(), 2u);
  table.remove(peer);
  CHECK(table.find(7, a.bytes) == nullptr);
  CHECK(table.find(7, b.bytes) == other);
}

TEST("a key given back is not live but stays readable") {
  PeerTable table;
  const Key a = keyOf(1);
  Peer* peer = table.findOrAdd(7, a.bytes);
  CHECK(peer->live);
  table.remove(peer);
  CHECK(!peer->live);
  CHECK(peer->key == a);
}

TEST("keys keep their address while the table grows") {
  PeerTable table;
  std::map<uint32_t, Peer*> where;
  for (uint32_t n = 0; n < 10'000; ++n) where[n] = table.findOrAdd(uint64_t{n} * 0x9e3779b97f4a7c15, keyOf(n).bytes);
  for (const auto& [n, peer] : where) CHECK(table.find(uint64_t{n} * 0x9e3779b97f4a7c15, keyOf(n).bytes) == peer);
}

TEST("after 100,000 random operations the table holds the same keys as std::map") {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    check::note("seed " + std::to_string(seed));
    check::Random random(seed);
    PeerTable table;
    std::map<uint32_t, Peer*> model;
    // Few distinct hashes make long runs, which wrap round the end and are closed by removal.
    const uint32_t hashes = seed % 2 == 0 ? 40 : 1'000'000;
    const auto hashOf = [&](uint32_t n) { return (uint64_t{n} % hashes) * 61; };
    const uint32_t universe = seed % 2 == 0 ? 300 : 3'000;
    for (uint32_t i = 0; i < 100'000; ++i) {
      const uint32_t n = random.below(universe);
      const Key key = keyOf(n);
      const auto it = model.find(n);
      if (random.oneIn(2)) {
        Peer* peer = table.findOrAdd(hashOf(n), key.bytes);
        if (it == model.end()) {
          CHECK(peer->connections == nullptr && peer->active == nullptr && peer->forwarders.empty());
          model[n] = peer;
        } else {
          CHECK(peer == it->second);
        }
        CHECK(peer->key == key && peer->live && peer->hash == hashOf(n));
      } else if (it != model.end()) {
        table.remove(it->second);
        model.erase(it);
      } else {
        CHECK(table.find(hashOf(n), key.bytes) == nullptr);
      }
      CHECK_EQ(table.size(), model.size());
    }
    size_t visited = 0;
    table.forEach([&](const Peer& peer) {
      uint32_t n;
      std::memcpy(&n, peer.key.bytes, sizeof n);
      CHECK(model.contains(n) && model[n] == &peer);
      ++visited;
    });
    CHECK_EQ(visited, model.size());
  }
}
