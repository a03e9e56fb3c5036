// The router's side towards other relays: forwarders of keys, packets to and from mesh links.
#include <algorithm>
#include <new>

#include "router.h"

namespace derplane {
namespace {

// Turns a ForwardPacket into the RecvPacket that lies in its second half. The destination key there is overwritten.
uint8_t* rewriteForward(uint8_t* frame, uint32_t size) {
  uint8_t* recv = frame + kKeySize;
  std::memmove(recv + kFrameHeaderSize, frame + kFrameHeaderSize, kKeySize);
  putFrameHeader(recv, FrameType::kRecvPacket, size - kKeySize - kFrameHeaderSize);
  return recv;
}

}  // namespace

void Router::addForwarder(const Key& key, const Forwarder& forwarder) {
  Forwarders& list = addPeer(key)->forwarders;
  if (list.add(forwarder) && list.size() == 2) counters_.add(Counter::multiforwarder_created);
}

void Router::removeForwarder(const Key& key, const Forwarder& forwarder) {
  Peer* peer = peers_.find(hashOf(key), key.bytes);
  if (peer == nullptr) return;
  if (!peer->forwarders.remove(forwarder)) {
    counters_.add(Counter::packet_forwarder_delete_other_value);
    return;
  }
  if (peer->forwarders.size() == 1) counters_.add(Counter::multiforwarder_deleted);
  releaseIfUnused(*peer);
}

// --- packets out ---------------------------------------------------------------------------------------------------

bool Router::forwardPacket(Client& client, Peer& peer, const uint8_t* frame, uint32_t size) {
  const uint8_t* packet = frame + kPacketFrameFixed;
  const uint32_t packet_size = size - kPacketFrameFixed;
  const Forwarder& first = peer.forwarders.front();
  if (first.shard == Forwarder::kControlPlane || first.shard == config_.shard) {
    countReceived(client, frame, size);
    DropReason why;
    if (!forwardNow(peer, client.key.bytes, packet, packet_size, &why)) {
      counters_.drop(why, looksLikeDisco(packet, packet_size), packet_size, client.label);
    }
    return true;
  }
  const uint32_t forward_size = kFrameHeaderSize + kForwardPacketFixed + packet_size;
  RingRecord* record = reserveInRing(client, first.shard, forward_size);
  if (record == nullptr && !drop_when_full_) return false;
  countReceived(client, frame, size);
  if (record == nullptr) {
    counters_.drop(DropReason::queue_tail, looksLikeDisco(packet, packet_size), packet_size, client.label);
    return true;
  }
  commitForward(record, first, client.key.bytes, peer.key, packet, packet_size);
  return true;
}

void Router::commitForward(RingRecord* record, const Forwarder& forwarder, const uint8_t* source,
                           const Key& destination, const uint8_t* packet, uint32_t size) {
  *record = RingRecord{};
  record->kind = RecordKind::kForward;
  record->client_slot = forwarder.slot;
  record->client_generation = forwarder.generation;
  putForwardPacket(reinterpret_cast<uint8_t*>(record + 1), source, destination, packet, size);
  rings_[forwarder.shard].commit();
  rings_dirty_ |= uint64_t{1} << forwarder.shard;
  counters_.add(Counter::ring_packets_out);
}

bool Router::forwardNow(Peer& peer, const uint8_t* source, const uint8_t* packet, uint32_t size, DropReason* why) {
  const Forwarder forwarder = peer.forwarders.front();
  *why = DropReason::queue_tail;
  if (forwarder.shard == Forwarder::kControlPlane) {
    if (!events_.forwardToControl(Key::from(source), peer.key, packet, size)) return false;
    counters_.add(Counter::packets_forwarded_out);
    return true;
  }
  if (forwarder.shard == config_.shard) {
    *why = DropReason::gone_disconnected;  // the link ended, its forwarders are about to be removed
    return forwardHere(forwarder, source, peer.key, packet, size);
  }
  const auto record_size = static_cast<uint32_t>(sizeof(RingRecord)) + kFrameHeaderSize + kForwardPacketFixed + size;
  RingRecord* record = rings_[forwarder.shard].reserve(record_size);
  if (record == nullptr) return false;
  commitForward(record, forwarder, source, peer.key, packet, size);
  return true;
}

uint32_t Router::frontRoom(const Client& client) const {
  const Peer* last = client.last_destination;
  return last != nullptr && last->live && last->connection_count == 0 ? kFrontRoom : 0;
}

// Where the ForwardPacket frame of a packet that was just read can be made: it is longer by a key than what came, so
// the packets of a read move together into the free bytes in front of it, and leave as one piece. Null without such
// bytes.
uint8_t* Router::takeFront(const uint8_t* packet, uint32_t size) {
  if (front_ == nullptr || front_end_ - front_ < kKeySize || packet != front_end_ + kPacketFrameFixed) return nullptr;
  uint8_t* frame = front_;
  front_ += kFrameHeaderSize + kForwardPacketFixed + size;
  front_end_ += kPacketFrameFixed + size;
  return frame;
}

bool Router::forwardHere(const Forwarder& forwarder, const uint8_t* source, const Key& destination,
                         const uint8_t* packet, uint32_t size) {
  Client* link = clientAt(forwarder.slot, forwarder.generation);
  if (link == nullptr) return false;
  const uint32_t frame_size = kFrameHeaderSize + kForwardPacketFixed + size;
  uint8_t* frame = takeFront(packet, size);
  if (frame == nullptr) frame = arena_.take(frame_size);
  putForwardPacket(frame, source, destination, packet, size);
  link->queue.append(queues_, frame, frame_size, PieceKind::kForwardPackets);
  touch(*link);
  return true;
}

void Router::takeForward(const RingRecord& record) {
  counters_.add(Counter::ring_packets_in);
  const auto* frame = reinterpret_cast<const uint8_t*>(&record + 1);
  const uint32_t size = kFrameHeaderSize + frameLength(frame);
  Client* link = clientAt(record.client_slot, record.client_generation);
  if (link == nullptr) {
    const uint8_t* packet = frame + kFrameHeaderSize + kForwardPacketFixed;
    const uint32_t packet_size = size - kFrameHeaderSize - kForwardPacketFixed;
    counters_.drop(DropReason::gone_disconnected, looksLikeDisco(packet, packet_size), packet_size);
    return;
  }
  link->queue.append(queues_, frame, size, PieceKind::kForwardPackets);
  touch(*link);
}

// --- packets in ---------------------------------------------------------------------------------------------------

void Router::countForwardedIn(Client& client, uint32_t payload) {
  ++client.received_packets;
  client.received_bytes += payload;
  counters_.add(Counter::packets_forwarded_in);
}

void Router::handleForwardPacket(Client& client, uint8_t* frame, uint32_t size, bool& blocked) {
  const Key source = Key::from(frame + kFrameHeaderSize);
  const Key destination = Key::from(frame + kFrameHeaderSize + kKeySize);
  if (source.isZero()) {
    close(client, CloseReason::bad_forward_source);
    return;
  }
  if (source != forward_source_) {
    forward_source_ = source;
    forward_source_hash_ = hashOf(source);
  }
  const uint64_t source_hash = forward_source_hash_;
  Peer* hint = client.last_destination;
  if (hint != nullptr && hint->live && hint->active != nullptr && hint->key == destination) {
    // The usual packet: the same destination as before, on this shard, connected.
    countForwardedIn(client, size - kFrameHeaderSize - kForwardPacketFixed);
    deliverTo(*hint->active, rewriteForward(frame, size), size - kKeySize, source_hash);
    return;
  }
  const uint64_t hash = hashOf(destination);
  const uint32_t shard = shardOfHash(hash, config_.shards);
  const uint32_t recv_size = size - kKeySize;
  if (shard != config_.shard) {
    RingRecord* record = reserveInRing(client, shard, recv_size);
    if (record == nullptr && !drop_when_full_) {
      blocked = true;
      return;
    }
    countForwardedIn(client, size - kFrameHeaderSize - kForwardPacketFixed);
    const uint8_t* recv = rewriteForward(frame, size);
    if (record == nullptr) {
      dropPacket(DropReason::queue_tail, recv, recv_size, client.label);
    } else {
      commitPacket(client, shard, record, destination, hash, source_hash, recv, recv_size, true);
    }
    return;
  }
  countForwardedIn(client, size - kFrameHeaderSize - kForwardPacketFixed);
  uint8_t* recv = rewriteForward(frame, size);
  DropReason why;
  client.last_destination = peers_.find(hash, destination.bytes);
  if (deliver(client.last_destination, recv, recv_size, source_hash, true, &why)) return;
  const bool disco = looksLikeDisco(recv + kPacketFrameFixed, recv_size - kPacketFrameFixed);
  dropPacket(why, recv, recv_size, client.label);
  if (why == DropReason::unknown_dest_on_fwd && disco) answerNotHere(client, destination);
}

// --- links ---------------------------------------------------------------------------------------------------------

Client* Router::adoptLink(const Adoption& adoption, const uint8_t* first_output, uint32_t size) {
  auto* link = new (std::nothrow) Client;
  if (link == nullptr) return nullptr;
  link->link = std::make_unique<LinkState>(config_.seed);
  link->link->adopted_ms = link->link->heard_ms = now_ms_;
  link->key = adoption.key;
  link->id = adoption.id;
  link->connected_ms = now_ms_;
  link->address = adoption.address;
  link->fd = adoption.fd;
  link->notify = adoption.notify;
  link->queue.allowMeshControl();
  link->slot = takeSlot(link);
  link->generation = generations_[link->slot];
  ++link_count_;
  timers_.set(*link, now_ms_, now_ms_ + kLinkReportMs);
  sendControl(*link, first_output, size);
  return link;
}

// The timer of a link: its report, then a look at its silence every quarter of the time that it may last.
void Router::tickLink(Client& link) {
  LinkState& state = *link.link;
  if (!state.reported) {
    state.reported = true;
    events_.linkUp(link, state.present.size());
  }
  if (now_ms_ - state.heard_ms > kLinkTimeoutMs) {
    close(link, CloseReason::link_timeout);
  } else {
    timers_.set(link, now_ms_, now_ms_ + kLinkTimeoutMs / 4);
  }
}

ParseResult Router::consumeLink(Client& link, uint8_t* data, uint32_t size) {
  link.link->heard_ms = now_ms_;
  uint32_t at = 0;
  while (!link.closing) {
    const auto n = static_cast<uint32_t>(std::min<uint64_t>(link.skip, size - at));
    link.skip -= n;
    at += n;
    if (size - at < kFrameHeaderSize) return {at, ParseStatus::kPartial};
    const uint8_t* body = data + at + kFrameHeaderSize;
    const FrameType type = frameType(data + at);
    const uint32_t length = frameLength(data + at);
    if (length > kMaxLinkFrameSize) {
      close(link, CloseReason::link_frame_too_big);
      break;
    }
    // Presence frames may be longer than we know, short ones are passed over; nothing else concerns us.
    const bool presence = (type == FrameType::kPeerPresent || type == FrameType::kPeerGone) && length >= kKeySize;
    const bool ping = type == FrameType::kPing && length >= kPingSize;
    const uint32_t wanted = presence ? kKeySize : ping ? kPingSize : 0;
    if (size - at < kFrameHeaderSize + wanted) return {at, ParseStatus::kPartial};
    if (presence && type == FrameType::kPeerPresent) linkPresent(link, Key::from(body));
    if (presence && type == FrameType::kPeerGone) linkAbsent(link, Key::from(body));
    if (ping) handlePing(link, body);
    at += kFrameHeaderSize + wanted;
    link.skip = length - wanted;
  }
  return {size, ParseStatus::kClosed};
}

void Router::linkPresent(Client& link, const Key& key) {
  if (link.link->present.size() >= kMaxLinkKeys) return;
  if (link.link->present.insert(key))
    registerForwarder({config_.shard, link.slot, link.generation}, key, RecordKind::kAddForwarder);
}

void Router::linkAbsent(Client& link, const Key& key) {
  link.link->present.erase(key);
  registerForwarder({config_.shard, link.slot, link.generation}, key, RecordKind::kRemoveForwarder);
}

// Tells the key's shard that a link of this shard can reach it, or no longer can.
void Router::registerForwarder(const Forwarder& link, const Key& key, RecordKind kind) {
  const uint64_t hash = hashOf(key);
  const uint32_t shard = shardOfHash(hash, config_.shards);
  if (shard != config_.shard) {
    ++registrations_[shard];
    notify(shard, {.kind = kind, .key = key, .hash = hash, .slot = link.slot, .generation = link.generation});
  } else if (kind == RecordKind::kAddForwarder) {
    addForwarder(key, link);
  } else {
    removeForwarder(key, link);
  }
}

void Router::orphanKeys(Client& link) {
  link.link->keys_at_end = link.link->present.size();
  orphans_.push_back({{config_.shard, link.slot, link.generation}, std::move(link.link->present)});
}

// A bounded part of the forwarders of links that ended; true when there were any. While the lists that this fills are
// long it waits.
bool Router::removeOrphans() {
  if (orphans_.empty() || crowded(kCrowd)) return false;
  Orphans& orphans = orphans_.back();
  orphans.next = orphans.keys.drainFrom(orphans.next, kOrphanPlacesPerStep, [&](const Key& key) {
    registerForwarder(orphans.forwarder, key, RecordKind::kRemoveForwarder);
  });
  if (orphans.next == 0) orphans_.pop_back();
  return true;
}

}  // namespace derplane
