#include "router.h"

#include <algorithm>
#include <new>

namespace derplane {
namespace {

constexpr uint8_t kKeepAliveFrame[kFrameHeaderSize] = {static_cast<uint8_t>(FrameType::kKeepAlive), 0, 0, 0, 0};
constexpr uint64_t kHomeMoveAfterMs = 5000;

// One not-here answer a second, with a burst of three.
constexpr uint64_t kNotHereIntervalMs = 1000;

}  // namespace

Router::Router(const RouterConfig& config, Counters counters, RouterEvents& events)
    : config_(config),
      counters_(counters),
      events_(events),
      queues_{counters_, blocks_},
      duplicates_(config.duplicates, counters_),
      timers_(config.keepalive_ms + config.keepalive_ms / 12 + TimerWheel::kMinTickMs),
      jitter_state_(config.seed.k0 ^ config.seed.k1 ^ (config.shard + 1)),
      departures_(slots_, counters_) {
  queues_.depth = config.queue_depth;
  queues_.max_bytes = config.max_queue_bytes;
}

Router::~Router() {
  closeAll(CloseReason::server_closed);
  while (Client* client = takeClosing()) destroy(client);
  endTurn();
}

// --- clients -------------------------------------------------------------------------------------------------------

uint32_t Router::takeSlot(Client* client) {
  uint32_t slot;
  if (free_slots_.empty()) {
    slot = static_cast<uint32_t>(slots_.size());
    slots_.push_back(client);
    generations_.push_back(0);
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
    slots_[slot] = client;
  }
  ++generations_[slot];
  return slot;
}

Client* Router::adopt(const Adoption& adoption, const uint8_t* first_output, uint32_t size) {
  auto* client = new (std::nothrow) Client;
  if (client == nullptr) return nullptr;
  Peer* peer = addPeer(adoption.key);
  client->peer = peer;
  client->key = adoption.key;
  client->id = adoption.id;
  client->connected_ms = now_ms_;
  client->address = adoption.address;
  client->fd = adoption.fd;
  client->mesh = adoption.mesh;
  client->prober = adoption.prober;
  client->not_ideal = adoption.not_ideal;
  client->notify = adoption.notify;
  client->connected_ns = adoption.connected_ns;
  client->number = adoption.number;
  client->receive_rate = adoption.receive_rate;
  client->label = adoption.label;
  client->queue.setLabel(adoption.label);
  counters_.label(client->label, LabelCounter::clients);
  if (adoption.version != ClientNote::kUsualVersion || !adoption.app_name.empty()) {
    client->note.reset(new ClientNote{adoption.version, adoption.app_name.substr(0, ClientNote::kMaxAppName)});
  }
  if (client->mesh) client->queue.allowMeshControl();
  client->slot = takeSlot(client);
  client->generation = generations_[client->slot];
  ++client_count_;
  counters_.add(Counter::current_connections);
  if (client->not_ideal) counters_.add(Counter::current_notideal_connections);
  if (peer->connection_count == 0) counters_.add(Counter::clients_local);
  if (peer->connection_count >= kMaxConnectionsPerKey) closeOldest(*peer);
  duplicates_.join(*peer, *client);
  armKeepAlive(*client);
  client->uncounted_frames = 1;  // ServerInfo
  sendControl(*client, first_output, size);
  announce(*client);
  return client;
}

void Router::close(Client& client, CloseReason reason) {
  if (client.closing) return;
  client.closing = true;
  client.close_reason = reason;
  client.next_closing = closing_;
  closing_ = &client;
  timers_.cancel(client);
  counters_.closed(reason);
  if (reason == CloseReason::write_timeout) counters_.add(Counter::sclient_write_timeouts);
  if (client.watching) unwatch(client);
  leaveBlocked(client);
  forgetSlowed(client);
  if (client.link != nullptr) {
    orphanKeys(client);
    --link_count_;
  } else {
    leavePeer(client);
    --client_count_;
  }
  slots_[client.slot] = nullptr;
  departures_.receiverLeft(client);
  free_slots_.push_back(client.slot);
}

void Router::leavePeer(Client& client) {
  counters_.add(Counter::current_connections, -1);
  counters_.label(client.label, LabelCounter::clients, -1);
  if (client.not_ideal) counters_.add(Counter::current_notideal_connections, -1);
  if (client.preferred) counters_.add(Counter::current_home_connections, -1);
  Peer* peer = client.peer;
  duplicates_.leave(*peer, client);
  if (peer->connection_count > 0) return;
  counters_.add(Counter::clients_local, -1);
  announceAbsence(*peer, client.slot);
  peer->announced = false;
  releaseIfUnused(*peer);
}

void Router::leaveBlocked(Client& client) {
  if (client.blocked_on == kNotBlocked) return;
  blocked_[client.blocked_on].remove(client);
  client.blocked_on = kNotBlocked;
}

void Router::closeOldest(Peer& peer) {
  Client* oldest = peer.connections;
  while (oldest->next_of_key != nullptr) oldest = oldest->next_of_key;
  close(*oldest, CloseReason::too_many_duplicates);
}

void Router::closePeer(const Key& key, CloseReason reason) {
  Peer* peer = peers_.find(hashOf(key), key.bytes);
  if (peer == nullptr) return;
  for (Client* c = peer->connections; c != nullptr;) {
    Client* next = c->next_of_key;  // close() unlinks c, and gives the peer back with its last connection
    close(*c, reason);
    c = next;
  }
}

void Router::closeAll(CloseReason reason) {
  watches_.clear();  // they all end too, so no one needs to hear
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    if (slots_[slot] != nullptr) close(*slots_[slot], reason);
  }
}

Client* Router::takeClosing() {
  Client* client = closing_;
  if (client != nullptr) closing_ = client->next_closing;
  return client;
}

void Router::destroy(Client* client) {
  const bool write_failed =
      client->close_reason == CloseReason::write_error || client->close_reason == CloseReason::write_timeout;
  client->queue.clear(queues_, write_failed ? DropReason::write_error : DropReason::gone_disconnected);
  if (client->carry != nullptr) {
    counters_.add(Counter::held_bytes, -int64_t{client->carry->size});
    retire(client->carry);  // pieces of other clients may point into it
  }
  delete client;
}

Peer* Router::addPeer(const Key& key) {
  const uint32_t before = peers_.size();
  Peer* peer = peers_.findOrAdd(hashOf(key), key.bytes);
  counters_.add(Counter::clients_total, int64_t{peers_.size()} - before);
  return peer;
}

void Router::releaseIfUnused(Peer& peer) {
  if (peer.connection_count != 0 || !peer.forwarders.empty()) return;
  counters_.add(Counter::clients_total, -1);
  keyGone(peer.key, peer.hash);
  peers_.remove(&peer);
}

void Router::setJsForwarder(const Key& key, bool present) {
  static constexpr Forwarder kJavaScript{.shard = Forwarder::kControlPlane};
  if (present) {
    addForwarder(key, kJavaScript);
  } else {
    removeForwarder(key, kJavaScript);
  }
}

void Router::armKeepAlive(Client& client) {
  if (config_.keepalive_ms == 0) return;
  // The jitter is drawn once per connection; xorshift64 is good enough to spread timers.
  jitter_state_ ^= jitter_state_ << 13;
  jitter_state_ ^= jitter_state_ >> 7;
  jitter_state_ ^= jitter_state_ << 17;
  client.keepalive_ms = static_cast<uint32_t>(config_.keepalive_ms + jitter_state_ % (config_.keepalive_ms / 12 + 1));
  timers_.set(client, now_ms_, now_ms_ + client.keepalive_ms);
}

void Router::tick() {
  tellNoLongerSlowed();
  timers_.advance(now_ms_, [this](Client& client) {
    if (client.link != nullptr) {
      tickLink(client);
      return;
    }
    if (queues_.pieces.left() < kPieceReserve / 2) {  // a turn full of output: at the next tick
      timers_.set(client, now_ms_, now_ms_ + 1);
      return;
    }
    timers_.set(client, now_ms_, now_ms_ + client.keepalive_ms);
    client.queue.append(queues_, kKeepAliveFrame, kFrameHeaderSize, PieceKind::kControl);
    touch(client);
  });
}

// --- frames --------------------------------------------------------------------------------------------------------

uint32_t Router::frameBytesNeeded(const uint8_t* data, uint32_t size) {
  return size < kFrameHeaderSize ? kFrameHeaderSize : kFrameHeaderSize + frameLength(data);
}

CloseReason Router::checkHeader(const Client& client, FrameType type, uint32_t length, bool& bad) {
  bad = true;
  switch (type) {
    case FrameType::kSendPacket:
      if (length < kSendPacketFixed) return CloseReason::bad_packet_frame;
      if (length > kSendPacketFixed + kMaxPacketSize) return CloseReason::packet_too_big;
      break;
    case FrameType::kForwardPacket:
      if (!client.mesh) return CloseReason::insufficient_permissions;
      if (length < kForwardPacketFixed) return CloseReason::bad_packet_frame;
      if (length > kForwardPacketFixed + kMaxPacketSize) return CloseReason::packet_too_big;
      break;
    case FrameType::kNotePreferred:
      if (length != 1) return CloseReason::bad_note_preferred;
      break;
    case FrameType::kWatchConns:
      if (length != 0) return CloseReason::bad_watch_conns;
      if (!client.mesh) return CloseReason::insufficient_permissions;
      break;
    case FrameType::kClosePeer:
      if (length != kKeySize) return CloseReason::bad_close_peer;
      if (!client.mesh) return CloseReason::insufficient_permissions;
      break;
    case FrameType::kPing:
      if (length >= kPingSize && length <= kMaxPingSize) break;
      counters_.add(Counter::got_ping);  // bad ones count too, as with derper
      return CloseReason::bad_ping;
    default:
      break;
  }
  bad = false;
  return CloseReason::eof;
}

ParseResult Router::consume(Client& client, uint8_t* data, uint32_t size, uint32_t room) {
  if (client.link != nullptr) return consumeLink(client, data, size);
  front_ = data - room;
  front_end_ = data;
  const ParseResult result = consumeFrames(client, data, size);
  front_ = front_end_ = nullptr;
  return result;
}

ParseResult Router::consumeFrames(Client& client, uint8_t* data, uint32_t size) {
  uint32_t at = 0;
  while (!client.closing) {
    if (client.skip > 0) {
      const auto n = static_cast<uint32_t>(std::min<uint64_t>(client.skip, size - at));
      client.skip -= n;
      at += n;
    }
    if (size - at < kFrameHeaderSize) return {at, ParseStatus::kPartial};
    uint8_t* frame = data + at;
    const FrameType type = frameType(frame);
    const uint32_t length = frameLength(frame);
    if (!client.header_counted) {
      client.header_counted = true;
      if (client.peer->connection_count > 1) duplicates_.spoke(*client.peer, client);
      if ((rate_bytes_per_second_ | client.receive_rate) != 0 && !client.mesh && !mayReceive(client, length))
        return {at, ParseStatus::kThrottled};
    }
    bool bad;
    const CloseReason reason = checkHeader(client, type, length, bad);
    if (bad) {
      close(client, reason);
      break;
    }
    switch (type) {
      case FrameType::kSendPacket:
      case FrameType::kForwardPacket:
      case FrameType::kNotePreferred:
      case FrameType::kWatchConns:
      case FrameType::kClosePeer:
      case FrameType::kPing:
        break;
      default:  // unknown: skipped as it streams in, never buffered
        counters_.add(Counter::unknown_frames);
        client.skip = length;
        client.header_counted = false;
        at += kFrameHeaderSize;
        continue;
    }
    const uint32_t frame_size = kFrameHeaderSize + length;
    if (size - at < frame_size) return {at, ParseStatus::kPartial};
    if (!handleFrame(client, frame, frame_size)) {
      return {at, client.paused ? ParseStatus::kPaused : ParseStatus::kBlocked};
    }
    client.header_counted = false;
    at += frame_size;
  }
  return {size, ParseStatus::kClosed};
}

bool Router::handleFrame(Client& client, uint8_t* frame, uint32_t size) {
  const uint8_t* body = frame + kFrameHeaderSize;
  bool blocked = false;
  switch (frameType(frame)) {
    case FrameType::kSendPacket:
      return handlePacket(client, frame, size);
    case FrameType::kForwardPacket:
      handleForwardPacket(client, frame, size, blocked);
      return !blocked;
    case FrameType::kNotePreferred:
      handleNotePreferred(client, body[0] != 0);
      break;
    case FrameType::kWatchConns:
      return handleWatchConns(client);
    case FrameType::kClosePeer:
      return handleClosePeer(client, Key::from(body));
    case FrameType::kPing:
      handlePing(client, body);
      break;
    default:
      break;
  }
  return true;
}

bool Router::handlePacket(Client& client, uint8_t* frame, uint32_t size) {
  uint8_t* key = frame + kFrameHeaderSize;
  Peer* hint = client.last_destination;
  if (hint != nullptr && hint->live && std::memcmp(hint->key.bytes, key, kKeySize) == 0) {
    if (hint->connection_count == 0) return forwardPacket(client, *hint, frame, size);
    if (hint->active != nullptr) {
      // The usual packet: the same destination as before, on this shard, connected.
      countReceived(client, frame, size);
      std::memcpy(key, client.peer->key.bytes, kKeySize);
      frame[0] = static_cast<uint8_t>(FrameType::kRecvPacket);
      deliverTo(*hint->active, frame, size, client.peer->hash);
      return true;
    }
  }
  const Key destination = Key::from(key);
  const uint64_t hash = hashOf(destination);
  const uint32_t shard = shardOfHash(hash, config_.shards);
  if (shard != config_.shard) {
    // Room first: a frame that has to wait must stay as it came.
    RingRecord* record = reserveInRing(client, shard, size);
    if (record == nullptr && !drop_when_full_) return false;
    countReceived(client, frame, size);
    std::memcpy(key, client.peer->key.bytes, kKeySize);
    frame[0] = static_cast<uint8_t>(FrameType::kRecvPacket);
    if (record == nullptr) {
      dropPacket(DropReason::queue_tail, frame, size, client.label);
    } else {
      commitPacket(client, shard, record, destination, hash, client.peer->hash, frame, size, false);
    }
    return true;
  }
  Peer* peer = peers_.find(hash, key);
  client.last_destination = peer;
  if (peer != nullptr && peer->connection_count == 0) return forwardPacket(client, *peer, frame, size);
  countReceived(client, frame, size);
  std::memcpy(key, client.peer->key.bytes, kKeySize);
  frame[0] = static_cast<uint8_t>(FrameType::kRecvPacket);
  DropReason why;
  if (deliver(peer, frame, size, client.peer->hash, false, &why)) return true;
  const bool disco = looksLikeDisco(frame + kPacketFrameFixed, size - kPacketFrameFixed);
  dropPacket(why, frame, size, client.label);
  if (why == DropReason::unknown_dest && disco) answerNotHere(client, destination);
  return true;
}

void Router::countReceived(Client& client, const uint8_t* frame, uint32_t size) {
  const uint32_t payload = size - kPacketFrameFixed;
  ++client.received_packets;
  client.received_bytes += payload;
  counters_.label(client.label, LabelCounter::packets_received);
  counters_.label(client.label, LabelCounter::bytes_received, payload);
  counters_.add(Counter::packets_received);
  counters_.add(Counter::bytes_received, payload);
  counters_.add(looksLikeDisco(frame + kPacketFrameFixed, payload) ? Counter::packets_received_disco
                                                                   : Counter::packets_received_other);
}

void Router::deliverTo(Client& client, const uint8_t* frame, uint32_t size, uint64_t source_hash) {
  departures_.heard(client, source_hash);
  client.queue.append(queues_, frame, size, PieceKind::kRecvPackets);
  touch(client);
}

bool Router::deliver(Peer* peer, const uint8_t* frame, uint32_t size, uint64_t source_hash, bool forwarded,
                     DropReason* why) {
  if (peer != nullptr && peer->active != nullptr) {
    deliverTo(*peer->active, frame, size, source_hash);
    return true;
  }
  *why = forwarded ? DropReason::unknown_dest_on_fwd : DropReason::unknown_dest;
  if (peer == nullptr) return false;
  if (peer->connection_count > 0) {
    *why = DropReason::dup_client;
    return false;
  }
  if (forwarded) return false;
  return forwardNow(*peer, frame + kFrameHeaderSize, frame + kPacketFrameFixed, size - kPacketFrameFixed, why);
}

void Router::dropPacket(DropReason reason, const uint8_t* frame, uint32_t size, uint8_t sender_label) {
  const uint32_t payload = size - kPacketFrameFixed;
  counters_.drop(reason, looksLikeDisco(frame + kPacketFrameFixed, payload), payload, sender_label);
}

void Router::answerNotHere(Client& client, const Key& destination) {
  if (client.closing || !mayAnswerNotHere(client)) return;
  client.not_here_ms = std::max(client.not_here_ms, now_ms_) + kNotHereIntervalMs;
  uint8_t frame[kPeerGoneFrameSize];
  putPeerGone(frame, destination, PeerGoneReason::kNotHere);
  sendControl(client, frame, sizeof frame);
  counters_.add(Counter::peer_gone_not_here_frames);
}

void Router::handlePing(Client& client, const uint8_t* body) {
  counters_.add(Counter::got_ping);
  if (client.queue.pongsWaiting() >= kMaxPongsWaiting) return;
  uint8_t frame[kPongFrameSize];
  std::memcpy(putFrameHeader(frame, FrameType::kPong, kPingSize), body, kPingSize);
  sendControl(client, frame, sizeof frame);
}

void Router::handleNotePreferred(Client& client, bool preferred) {
  if (client.preferred == preferred) return;
  client.preferred = preferred;
  counters_.add(Counter::current_home_connections, preferred ? 1 : -1);
  if (now_ms_ - client.connected_ms > kHomeMoveAfterMs) {
    counters_.add(preferred ? Counter::home_moves_in : Counter::home_moves_out);
  }
}

void Router::sendControl(Client& client, const uint8_t* frame, uint32_t size) {
  uint8_t* copy = arena_.take(size);
  std::memcpy(copy, frame, size);
  client.queue.append(queues_, copy, size, PieceKind::kControl);
  touch(client);
}

// --- output --------------------------------------------------------------------------------------------------------

void Router::touch(Client& client) {
  if (client.touched) return;
  client.touched = true;
  client.next_touched = touched_;
  touched_ = &client;
}

Client* Router::takeTouched() {
  Client* client = touched_;
  if (client != nullptr) {
    touched_ = client->next_touched;
    client->touched = false;
  }
  return client;
}

void Router::endTurn() {
  while (retired_ != nullptr) {
    Block* block = retired_;
    retired_ = block->next;
    blocks_.give(block);
  }
  queues_.pieces.reset();
  arena_.reset();
}

}  // namespace derplane
