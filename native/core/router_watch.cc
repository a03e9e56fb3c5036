// Presence: mesh peers that watch hear of every key with an active connection, then of every change.
//
// Each shard keeps all watchers of the relay and announces its keys to each: first a flood in bounded steps over the
// client slots, which a watcher's slow reading or a full ring holds up, then changes as they happen. Both go through
// the same ring in order.
#include <algorithm>

#include "router.h"

namespace derplane {
namespace {

uint8_t presentFlags(const Client& client) {
  const auto flags = static_cast<uint8_t>((client.mesh ? kPresentMeshPeer : 0) | (client.prober ? kPresentProber : 0) |
                                          (client.not_ideal ? kPresentNotIdeal : 0));
  return flags == 0 ? kPresentRegular : flags;
}

// A flood tells of a key, by its active connection, in the lowest slot of its connections: in rising order it cannot
// miss it, whichever of them come and go.
bool isFirstOfKey(const Client& client) {
  for (const Client* c = client.peer->connections; c != nullptr; c = c->next_of_key) {
    if (c->slot < client.slot) return false;
  }
  return true;
}

}  // namespace

// What follows WatchConns takes effect after its flood: a key that is closed at once is announced first, and whoever
// asks again hears everything again.
bool Router::mustPause(Client& client) {
  if (client.flooding != 0) {
    client.paused = true;  // endFlood resumes it
    return true;
  }
  if (!crowded(kCrowd)) return false;
  pauseForCrowd(client);
  return true;
}

bool Router::handleWatchConns(Client& client) {
  if (client.key == config_.public_key) return true;  // a relay that dialled itself
  if (mustPause(client)) return false;
  if (!client.watching) {
    client.watching = true;
    counters_.add(Counter::watchers);
  }
  client.flooding = (uint64_t{1} << config_.shards) - 1;
  startWatch(config_.shard, client.slot, client.generation);
  notifyOthers({.kind = RecordKind::kWatch, .key = client.key, .slot = client.slot, .generation = client.generation});
  return true;
}

bool Router::handleClosePeer(Client& client, const Key& key) {
  if (mustPause(client)) return false;
  closeElsewhere(key);
  return true;
}

void Router::startWatch(uint32_t shard, uint32_t slot, uint32_t generation) {
  for (Watch& watch : watches_) {
    if (watch.shard != shard || watch.slot != slot || watch.generation != generation) continue;
    watch.flooded = false;  // it asks again: everything again
    watch.cursor = 0;
    return;
  }
  watches_.push_back({shard, slot, generation});
}

void Router::stopWatch(uint32_t shard, uint32_t slot, uint32_t generation) {
  std::erase_if(watches_, [&](const Watch& watch) {
    return watch.shard == shard && watch.slot == slot && watch.generation == generation;
  });
}

void Router::unwatch(Client& client) {
  client.watching = false;
  counters_.add(Counter::watchers, -1);
  stopWatch(config_.shard, client.slot, client.generation);
  notifyOthers({.kind = RecordKind::kUnwatch, .key = client.key, .slot = client.slot, .generation = client.generation});
}

// A new connection. A flood that has not come to its slot yet will.
void Router::announce(const Client& client) {
  for (const Watch& watch : watches_) {
    if (watch.flooded || client.slot < watch.cursor) sendPresence(watch, client);
  }
}

// The last connection of a key left; it was in `slot`.
void Router::announceAbsence(const Peer& peer, uint32_t slot) {
  for (const Watch& watch : watches_) {
    if (!watch.flooded && slot >= watch.cursor && !peer.announced) continue;
    notify(watch.shard,
           {.kind = RecordKind::kAbsent, .key = peer.key, .slot = watch.slot, .generation = watch.generation});
  }
}

// Tells one watcher of one client.
void Router::sendPresence(const Watch& watch, const Client& client) {
  client.peer->announced = true;
  notify(watch.shard, {.kind = RecordKind::kPresent,
                       .key = client.key,
                       .slot = watch.slot,
                       .generation = watch.generation,
                       .address = client.address,
                       .flags = presentFlags(client)});
}

// Delivers changes to watchers of this shard as far as the turn has room: closing many clients makes more of them than
// a turn can hold.
bool Router::tellOwnWatchers() {
  std::deque<Notice>& notices = notices_[config_.shard];
  const bool any = !notices.empty();
  while (!notices.empty() && roomForRead(kPeerPresentFrameSize)) {
    const Notice& notice = notices.front();
    Client* watcher = clientAt(notice.slot, notice.generation);
    if (watcher != nullptr && watcher->watching && notice.kind == RecordKind::kPresent) {
      uint8_t frame[kPeerPresentFrameSize];
      putPeerPresent(frame, notice.key, notice.address.ip, notice.address.port, notice.flags);
      tell(*watcher, frame, sizeof frame);
    } else if (watcher != nullptr && watcher->watching) {
      uint8_t frame[kPeerGoneFrameSize];
      putPeerGone(frame, notice.key, PeerGoneReason::kDisconnected);
      tell(*watcher, frame, sizeof frame);
      counters_.add(Counter::peer_gone_disconnected_frames);
    }
    notices.pop_front();
  }
  return any;
}

bool Router::flood() {
  bool any = false;
  for (Watch& watch : watches_) any = (!watch.flooded && floodOne(watch)) || any;
  return any;
}

// One step of one flood; true when it got anywhere.
bool Router::floodOne(Watch& watch) {
  const bool here = watch.shard == config_.shard;
  if (here && !notices_[watch.shard].empty()) return false;  // the last step is not delivered yet
  const auto slots = static_cast<uint32_t>(slots_.size());
  const uint32_t stop = std::min(slots, watch.cursor + kSlotsPerBackgroundStep);
  const uint32_t start = watch.cursor;
  for (; watch.cursor < stop; ++watch.cursor) {
    const Client* client = slots_[watch.cursor];
    if (client == nullptr || client->peer == nullptr || client->peer->active == nullptr || !isFirstOfKey(*client))
      continue;
    // What found no room earlier goes first; a flood is never the reason that notices pile up.
    if (!here && !notices_[watch.shard].empty()) return watch.cursor > start;
    if (here) {
      const Client* watcher = clientAt(watch.slot, watch.generation);
      if (watcher != nullptr && watcher->queue.controlBytes() > kFloodBacklog) return watch.cursor > start;
    }
    sendPresence(watch, *client->peer->active);
  }
  watch.flooded = watch.cursor >= static_cast<uint32_t>(slots_.size());
  if (!watch.flooded) return true;
  if (!here) {
    notify(watch.shard, {.kind = RecordKind::kFlooded, .key = {}, .slot = watch.slot, .generation = watch.generation});
  } else if (Client* watcher = clientAt(watch.slot, watch.generation)) {
    endFlood(config_.shard, *watcher);
  }
  return true;
}

void Router::endFlood(uint32_t shard, Client& watcher) {
  watcher.flooding &= ~(uint64_t{1} << shard);
  touch(watcher);  // the batch may be complete, whether or not the last step added to it
  if (watcher.flooding == 0 && watcher.paused) resumed_.push_back({watcher.slot, watcher.generation});
}

void Router::tell(Client& watcher, const uint8_t* frame, uint32_t size) {
  sendControl(watcher, frame, size);
  // A batch counts as one frame where frames are counted.
  if (watcher.presence_changes++ > 0) ++watcher.uncounted_frames;
}

// Changes of one turn are a batch, and so is a flood of all shards' keys, however many turns it takes.
void Router::observePresence(Client& watcher) {
  if (watcher.presence_changes == 0 || watcher.flooding != 0) return;
  counters_.observeMeshBatch(watcher.presence_changes);
  watcher.presence_changes = 0;
}

void Router::takePresent(const RingRecord& record) {
  Client* watcher = clientAt(record.client_slot, record.client_generation);
  if (watcher == nullptr || !watcher->watching) return;
  tell(*watcher, reinterpret_cast<const uint8_t*>(&record + 1), kPeerPresentFrameSize);
}

void Router::takeAbsent(const RingRecord& record) {
  Client* watcher = clientAt(record.client_slot, record.client_generation);
  if (watcher == nullptr || !watcher->watching) return;
  uint8_t frame[kPeerGoneFrameSize];
  putPeerGone(frame, record.destination, PeerGoneReason::kDisconnected);
  tell(*watcher, frame, sizeof frame);
  counters_.add(Counter::peer_gone_disconnected_frames);
}

}  // namespace derplane
