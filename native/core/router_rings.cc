// The router's side towards other shards: packets into and out of rings, connections that wait for room, keys that left
// the region.
#include <algorithm>

#include "router.h"

namespace derplane {

// Who waits for a ring's room: notices in notices_, clients in blocked_. A wake-up (takeRoomBits of the shard) lets the
// notices go first, then the clients in order, until one finds no room and says so by waitForRoom. A client that comes
// while clients wait goes behind them without asking the ring: those in front have asked. publish(), at the end of a
// turn, is the only place that takes the ring's flag back, when no one waits. See ring.h for why no wake-up is lost.

bool Router::waitForRoom(uint32_t shard, uint32_t size) {
  rings_waited_for_ |= uint64_t{1} << shard;
  rings_dirty_ |= uint64_t{1} << shard;  // the ring's records are published now: their consumer must hear of it
  return rings_[shard].waitForRoom(size);
}

RingRecord* Router::reserveInRing(Client& client, uint32_t shard, uint32_t frame_size) {
  const uint32_t size = static_cast<uint32_t>(sizeof(RingRecord)) + frame_size;
  // First come, first served: while others wait for this ring, only the one being resumed may take its room.
  const bool others_wait = !blocked_[shard].empty() && resuming_ != shard;
  RingRecord* record = others_wait ? nullptr : rings_[shard].reserve(size);
  if (record != nullptr || drop_when_full_) return record;
  if (!others_wait && !waitForRoom(shard, size)) return rings_[shard].reserve(size);
  counters_.add(Counter::ring_full);
  block(client, shard);
  return nullptr;
}

void Router::commitPacket(const Client& client, uint32_t shard, RingRecord* record, const Key& destination,
                          uint64_t hash, uint64_t source_hash, const uint8_t* frame, uint32_t size, bool forwarded) {
  record->kind = RecordKind::kPacket;
  record->label = client.label;
  record->wants_reply =
      mayAnswerNotHere(client) && looksLikeDisco(frame + kPacketFrameFixed, size - kPacketFrameFixed) ? 1 : 0;
  record->forwarded = forwarded ? 1 : 0;
  record->client_slot = client.slot;
  record->client_generation = client.generation;
  record->destination_hash = hash;
  record->source_hash = source_hash;
  record->destination = destination;
  std::memcpy(record + 1, frame, size);
  rings_[shard].commit();
  rings_dirty_ |= uint64_t{1} << shard;
  counters_.add(Counter::ring_packets_out);
}

void Router::block(Client& client, uint32_t shard) {
  client.blocked_on = shard;
  if (resuming_ == shard) {
    blocked_[shard].pushFront(client);
  } else {
    blocked_[shard].pushBack(client);
  }
}

Client* Router::takeBlocked(uint32_t shard) {
  sendNotices(shard);
  if (!notices_[shard].empty()) return nullptr;
  Client* client = blocked_[shard].front();
  if (client == nullptr) return nullptr;
  blocked_[shard].remove(*client);
  client->blocked_on = kNotBlocked;
  return client;
}

bool Router::takeRing(uint32_t from, RingConsumer& ring, uint32_t max) {
  for (uint32_t i = 0; i < max; ++i) {
    if (!roomForRead(0)) return true;  // forwarded packets are copied into the arena
    RingRecord* record = ring.next();
    if (record == nullptr) return false;
    switch (record->kind) {
      case RecordKind::kPacket:
        takePacket(from, *record);
        break;
      case RecordKind::kNotHere: {
        Client* client = clientAt(record->client_slot, record->client_generation);
        if (client != nullptr) answerNotHere(*client, record->destination);
        break;
      }
      case RecordKind::kGone:
        departures_.keyLeft(record->destination, record->destination_hash);
        break;
      case RecordKind::kForward:
        takeForward(*record);
        break;
      case RecordKind::kAddForwarder:
        addForwarder(record->destination, {from, record->client_slot, record->client_generation});
        workedOff(from);
        break;
      case RecordKind::kRemoveForwarder:
        removeForwarder(record->destination, {from, record->client_slot, record->client_generation});
        workedOff(from);
        break;
      case RecordKind::kRegistered:
        registrations_[from] -= record->client_slot;
        break;
      case RecordKind::kWatch:
        startWatch(from, record->client_slot, record->client_generation);
        break;
      case RecordKind::kUnwatch:
        stopWatch(from, record->client_slot, record->client_generation);
        break;
      case RecordKind::kPresent:
        takePresent(*record);
        break;
      case RecordKind::kAbsent:
        takeAbsent(*record);
        break;
      case RecordKind::kFlooded:
        if (Client* watcher = clientAt(record->client_slot, record->client_generation)) endFlood(from, *watcher);
        break;
      case RecordKind::kClosePeer:
        closePeer(record->destination, CloseReason::peer_closed);
        break;
      case RecordKind::kPad:
        break;
    }
  }
  return true;
}

void Router::takePacket(uint32_t from, RingRecord& record) {
  counters_.add(Counter::ring_packets_in);
  auto* frame = reinterpret_cast<uint8_t*>(&record + 1);
  const uint32_t size = kFrameHeaderSize + frameLength(frame);
  Peer* peer = peers_.find(record.destination_hash, record.destination.bytes);
  DropReason why;
  if (deliver(peer, frame, size, record.source_hash, record.forwarded != 0, &why)) return;
  dropPacket(why, frame, size, record.label);
  if (record.wants_reply == 0 || (why != DropReason::unknown_dest && why != DropReason::unknown_dest_on_fwd)) return;
  // An answer that finds no room is dropped: the sender asks again.
  RingRecord* answer = rings_[from].reserve(sizeof(RingRecord));
  if (answer == nullptr) return;
  *answer = RingRecord{};
  answer->kind = RecordKind::kNotHere;
  answer->client_slot = record.client_slot;
  answer->client_generation = record.client_generation;
  answer->destination = record.destination;
  rings_[from].commit();
  rings_dirty_ |= uint64_t{1} << from;
}

Client* Router::clientAt(uint32_t slot, uint32_t generation) const {
  if (slot >= slots_.size() || generations_[slot] != generation) return nullptr;
  return slots_[slot];
}

void Router::closeElsewhere(const Key& key) {
  const uint32_t shard = shardOfHash(hashOf(key), config_.shards);
  if (shard == config_.shard) {
    closePeer(key, CloseReason::peer_closed);
  } else {
    notify(shard, {.kind = RecordKind::kClosePeer, .key = key});
  }
}

void Router::keyGone(const Key& key, uint64_t hash) {
  const Notice notice{.kind = RecordKind::kGone, .key = key, .hash = hash};
  departures_.keyLeft(key, hash);
  notifyOthers(notice);
}

void Router::notify(uint32_t shard, const Notice& notice) {
  notices_[shard].push_back(notice);
  if (shard != config_.shard && notices_[shard].size() == 1) sendNotices(shard);
}

void Router::notifyOthers(const Notice& notice) {
  for (uint32_t shard = 0; shard < config_.shards; ++shard) {
    if (shard != config_.shard) notify(shard, notice);
  }
}

bool Router::sendNotices(uint32_t shard) {
  if (shard == config_.shard) return false;  // see tellOwnWatchers
  std::deque<Notice>& notices = notices_[shard];
  size_t sent = 0;
  while (sent < notices.size()) {
    const Notice& notice = notices[sent];
    const bool present = notice.kind == RecordKind::kPresent;
    const auto size = static_cast<uint32_t>(sizeof(RingRecord)) + (present ? kPeerPresentFrameSize : 0);
    RingRecord* record = rings_[shard].reserve(size);
    if (record == nullptr) {
      if (!waitForRoom(shard, size)) continue;
      break;
    }
    *record = RingRecord{};
    record->kind = notice.kind;
    record->client_slot = notice.slot;
    record->client_generation = notice.generation;
    record->destination = notice.key;
    record->destination_hash = notice.hash;
    if (present) {
      putPeerPresent(reinterpret_cast<uint8_t*>(record + 1), notice.key, notice.address.ip, notice.address.port,
                     notice.flags);
    }
    rings_[shard].commit();
    rings_dirty_ |= uint64_t{1} << shard;
    ++sent;
  }
  notices.erase(notices.begin(), notices.begin() + static_cast<ptrdiff_t>(sent));
  return sent > 0;
}

bool Router::background() {
  bool any = false;
  for (uint32_t shard = 0; shard < config_.shards; ++shard) any = sendNotices(shard) || any;
  any = tellOwnWatchers() || any;
  any = removeOrphans() || any;
  any = flood() || any;
  any = tellGone() || any;
  any = peers_.step() || any;
  any = reportWorkedOff() || any;
  return endCrowd() || any;
}

// One step of telling who received packets from keys that left; true when there was anything to do.
bool Router::tellGone() {
  if (!roomForRead(kReceiversPerStep * kPeerGoneFrameSize)) return true;
  return departures_.step(kReceiversPerStep, [this](Client& client, const Key& key) {
    uint8_t frame[kPeerGoneFrameSize];
    putPeerGone(frame, key, PeerGoneReason::kDisconnected);
    sendControl(client, frame, sizeof frame);
    counters_.add(Counter::peer_gone_disconnected_frames);
  });
}

// --- lists that are long --------------------------------------------------------------------------------------------

bool Router::listsOver(size_t limit) const {
  if (departures_.waiting() > limit) return true;
  return std::any_of(notices_, notices_ + config_.shards, [limit](const auto& list) { return list.size() > limit; });
}

size_t Router::waitingNotices() const {
  size_t sum = departures_.waiting();
  for (uint32_t shard = 0; shard < config_.shards; ++shard) sum += notices_[shard].size();
  return sum;
}

bool Router::crowded(size_t limit) const {
  const uint32_t* end = registrations_ + config_.shards;
  return listsOver(limit) || std::any_of(registrations_, end, [limit](uint32_t n) { return n > limit; });
}

bool Router::mayRead(Client& client) {
  if (client.link == nullptr || !crowded(kCrowd)) return true;
  pauseForCrowd(client);
  return false;
}

void Router::pauseForCrowd(Client& client) {
  client.paused = true;
  counters_.add(Counter::crowd_pauses);
  paused_.push_back({client.slot, client.generation});
}

// Clients that wait for shorter lists go on when these are short; true when there was one.
bool Router::endCrowd() {
  if (paused_.empty() || crowded(kCrowd / 2)) return false;
  resumed_.insert(resumed_.end(), paused_.begin(), paused_.end());
  paused_.clear();
  return true;
}

Client* Router::takeResumed() {
  while (!resumed_.empty()) {
    const ClientRef ref = resumed_.back();
    resumed_.pop_back();
    Client* client = clientAt(ref.slot, ref.generation);
    if (client == nullptr) continue;
    client->paused = false;
    return client;
  }
  return nullptr;
}

// A registration by a link of another shard took effect here. That shard lets only so many be under way: what they make
// of notices in this shard is bounded, too, since it reports only while its own lists are short.
void Router::workedOff(uint32_t from) {
  if (++worked_off_[from] >= kRegistrationsPerReport) to_report_ |= uint64_t{1} << from;
}

bool Router::reportWorkedOff() {
  if (to_report_ == 0 || listsOver(kCrowd)) return false;
  for (; to_report_ != 0; to_report_ &= to_report_ - 1) {
    const auto shard = static_cast<uint32_t>(__builtin_ctzll(to_report_));
    notify(shard, {.kind = RecordKind::kRegistered, .key = {}, .slot = worked_off_[shard]});
    worked_off_[shard] = 0;
  }
  return true;
}

uint64_t Router::ringsWithRoomMade() const {
  uint64_t mask = 0;
  for (uint64_t left = rings_waited_for_; left != 0; left &= left - 1) {
    const auto shard = static_cast<uint32_t>(__builtin_ctzll(left));
    if (someoneWaitsFor(shard) && rings_[shard].roomWasMade()) mask |= uint64_t{1} << shard;
  }
  return mask;
}

uint64_t Router::publish() {
  for (uint64_t left = rings_waited_for_; left != 0; left &= left - 1) {
    const auto shard = static_cast<uint32_t>(__builtin_ctzll(left));
    if (someoneWaitsFor(shard)) continue;
    rings_[shard].nobodyWaits();
    rings_waited_for_ &= ~(uint64_t{1} << shard);
  }
  const uint64_t dirty = rings_dirty_;
  rings_dirty_ = 0;
  for (uint64_t left = dirty; left != 0; left &= left - 1) {
    rings_[static_cast<uint32_t>(__builtin_ctzll(left))].publish();
  }
  return dirty;
}

}  // namespace derplane
