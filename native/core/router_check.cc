// Router::check: the invariants of a shard's tables, each as a sentence when it does not hold.
#include <string>

#include "router.h"

namespace derplane {
namespace {

class Violations {
 public:
  void require(bool holds, const char* what) {
    if (!holds) add(what);
  }
  void requireEqual(uint64_t got, uint64_t want, const char* what) {
    if (got != want) add(std::string(what) + ": " + std::to_string(got) + ", counted " + std::to_string(want));
  }
  std::vector<std::string> take() { return std::move(list_); }

 private:
  static constexpr size_t kMax = 64;
  void add(std::string text) {
    if (list_.size() < kMax) list_.push_back(std::move(text));
  }
  std::vector<std::string> list_;
};

}  // namespace

std::vector<std::string> Router::check(uint64_t lost) const {
  Violations v;
  v.require(lost == 0, "clients or notices wait for a ring that has room, and no wake-up is on its way");
  for (uint32_t shard = 0; shard < config_.shards; ++shard) {
    v.require(!someoneWaitsFor(shard) || rings_[shard].waits(), "someone waits for a ring whose flag is not set");
  }
  uint64_t connections = 0, local = 0, dup_keys = 0, dup_connections = 0, home = 0, not_ideal = 0, queued = 0,
           armed = 0;
  peers_.forEach([&](const Peer& peer) {
    v.require(peer.live, "a key in the table is not live");
    v.require(peer.hash == hashOf(peer.key), "a key's hash is not the hash of the key");
    v.require(shardOfHash(peer.hash, config_.shards) == config_.shard, "a key lives on a shard that does not own it");
    v.require(peer.connection_count > 0 || !peer.forwarders.empty(), "a key has neither a connection nor a forwarder");
    uint32_t count = 0;
    bool has_active = peer.active == nullptr;
    for (const Client* c = peer.connections; c != nullptr; c = c->next_of_key) {
      ++count;
      has_active = has_active || c == peer.active;
      v.require(c->peer == &peer, "a connection in a key's list belongs to another key");
      v.require(!c->closing, "a closing connection is still in its key's list");
    }
    v.requireEqual(peer.connection_count, count, "connections of a key");
    v.require(has_active, "the active connection of a key is not one of its connections");
    v.require(peer.active == nullptr || !peer.active->disabled, "the active connection of a key is disabled");
    v.require(count != 1 || peer.active == peer.connections, "the only connection of a key is not active");
    connections += count;
    local += count > 0 ? 1 : 0;
    dup_keys += count > 1 ? 1 : 0;
    dup_connections += count > 1 ? count : 0;
  });
  uint64_t in_slots = 0, links = 0, watchers = 0;
  for (uint32_t slot = 0; slot < slots_.size(); ++slot) {
    const Client* c = slots_[slot];
    if (c == nullptr) continue;
    v.require(c->blocked_on == kNotBlocked || c->carry != nullptr, "a client waits for a ring with nothing to send");
    queued += c->queue.heldMemory() + c->sealed_bytes;
    if (c->link != nullptr) {
      ++links;
      v.require(c->peer == nullptr && !c->mesh && !c->watching, "a link is entered as a client");
      continue;
    }
    ++in_slots;
    watchers += c->watching ? 1 : 0;
    v.require(c->slot == slot && c->generation == generations_[slot], "a client does not know its slot");
    v.require(peers_.find(c->peer->hash, c->peer->key.bytes) == c->peer, "a client's key is not in the table");
    home += c->preferred ? 1 : 0;
    not_ideal += c->not_ideal ? 1 : 0;
    armed += c->timer_bucket != UINT32_MAX ? 1 : 0;
  }
  v.requireEqual(in_slots, connections, "clients in slots");
  v.requireEqual(client_count_, connections, "clients of the shard");
  v.requireEqual(link_count_, links, "links of the shard");
  for (const Watch& watch : watches_) {
    if (watch.shard != config_.shard) continue;
    const Client* watcher = clientAt(watch.slot, watch.generation);
    v.require(watcher != nullptr && watcher->watching,
              "presence is sent to a client of this shard that does not watch");
  }
  const char* departures = departures_.check();
  v.require(departures == nullptr, departures);
  if (config_.keepalive_ms != 0) v.requireEqual(armed, connections, "clients with a keepalive timer");
  v.requireEqual(queues_.bytes, queued, "memory of send queues");
  const auto gauge = [this](Counter c) { return static_cast<uint64_t>(counters_.get(c)); };
  v.requireEqual(gauge(Counter::current_connections), connections, "current_connections");
  v.requireEqual(gauge(Counter::watchers), watchers, "watchers");
  v.requireEqual(gauge(Counter::clients_local), local, "clients_local");
  v.requireEqual(gauge(Counter::clients_total), peers_.size(), "clients_total");
  v.requireEqual(gauge(Counter::current_dup_client_keys), dup_keys, "current_dup_client_keys");
  v.requireEqual(gauge(Counter::current_dup_client_conns), dup_connections, "current_dup_client_conns");
  v.requireEqual(gauge(Counter::current_home_connections), home, "current_home_connections");
  v.requireEqual(gauge(Counter::current_notideal_connections), not_ideal, "current_notideal_connections");
  v.requireEqual(gauge(Counter::queue_bytes), queued, "queue_bytes");
  return v.take();
}

}  // namespace derplane
