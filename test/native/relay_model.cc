#include "relay_model.h"

#include <algorithm>
#include <utility>

#include "check.h"

namespace model {

using namespace derplane;
using frames::operator+;

namespace {

// As RingMemory::in, which refuses what is too small for the largest packet.
RingMemory ringIn(Bytes& memory, uint64_t capacity) {
  const auto base = reinterpret_cast<uintptr_t>(memory.data());
  uint8_t* at = memory.data() + (kRingAlign - base % kRingAlign) % kRingAlign;
  return {reinterpret_cast<RingShared*>(at), at + sizeof(RingShared), capacity};
}

}  // namespace

Relay::Shard::Shard(Relay& relay_in, const RouterConfig& config)
    : relay(relay_in), router(std::make_unique<Router>(config, Counters(values), *this)) {}

bool Relay::Shard::forwardToControl(const Key& source, const Key& destination, const uint8_t* packet, uint32_t size) {
  if (!relay.control_has_room) return false;
  relay.forwarded.push_back({source, destination, Bytes(packet, packet + size)});
  return true;
}

Relay::Relay(const Options& options) : options_(options) {
  RouterConfig config{.seed = seed_,
                      .shards = options.shards,
                      .queue_depth = options.queue_depth,
                      .max_queue_bytes = options.max_queue_bytes,
                      .keepalive_ms = options.keepalive_ms,
                      .duplicates = options.duplicates};
  for (uint32_t i = 0; i < options.shards; ++i) {
    config.shard = i;
    shards_.push_back(std::make_unique<Shard>(*this, config));
    shards_[i]->rings_in.resize(options.shards);
    shards_[i]->memory.resize(options.shards);
  }
  for (uint32_t from = 0; from < options.shards; ++from) {
    for (uint32_t to = 0; to < options.shards; ++to) {
      if (from == to) continue;
      Bytes& memory = shards_[from]->memory[to];
      memory.resize(options.ring_bytes + kRingOverhead);
      const RingMemory ring = ringIn(memory, options.ring_bytes);
      router(from).setRing(to, RingProducer(ring));
      shards_[to]->rings_in[from] = RingConsumer(ring);
    }
  }
}

Relay::~Relay() {
  for (auto& shard : shards_) {
    shard->router.reset();
    // Whoever is gone holds nothing: a leak of a gauge shows here.
    CHECK_EQ(shard->values[static_cast<uint32_t>(Counter::current_connections)], 0);
    CHECK_EQ(shard->values[static_cast<uint32_t>(Counter::queue_bytes)], 0);
    CHECK_EQ(shard->values[static_cast<uint32_t>(Counter::held_bytes)], 0);
  }
}

const Bytes& Relay::serverInfo() {
  static const Bytes info = frames::frame(FrameType::kServerInfo, Bytes(40, 3));
  return info;
}

uint32_t Relay::shardOf(const Key& key) const { return shardOfHash(hashKey(seed_, key.bytes), options_.shards); }

Key Relay::keyOn(uint32_t shard, uint32_t n) const {
  for (uint32_t i = 1;; ++i) {
    const Key key = frames::keyOf(i);
    if (shardOf(key) == shard && n-- == 0) return key;
  }
}

int64_t Relay::get(Counter c) const {
  int64_t sum = 0;
  for (const auto& shard : shards_) {
    sum += __atomic_load_n(shard->values + static_cast<uint32_t>(c), __ATOMIC_RELAXED);
  }
  return sum;
}

int64_t Relay::dropped(DropReason reason, bool disco) const {
  int64_t sum = 0;
  for (const auto& shard : shards_) sum += Counters(shard->values).dropped(reason, disco);
  return sum;
}

int64_t Relay::dropped() const {
  int64_t sum = 0;
  for (const auto& shard : shards_) {
    for (uint32_t i = kDropPacketsBase; i < kDropBytesBase; ++i) sum += shard->values[i];
  }
  return sum;
}

std::vector<Session*> Relay::sessions() {
  std::vector<Session*> all;
  for (const auto& shard : shards_) {
    for (const auto& session : shard->sessions) all.push_back(session.get());
  }
  return all;
}

std::string Relay::violation() const {
  for (const auto& shard : shards_) {
    if (!shard->violation.empty()) return shard->violation;
  }
  return "";
}

bool Relay::woken(uint32_t index) {
  Shard& shard = *shards_[index];
  shard.ring_bits |= shard.slot.takeRingBits();
  shard.room_bits |= shard.slot.takeRoomBits();
  return (shard.ring_bits | shard.room_bits) != 0;
}

void Relay::forgetClosed(uint32_t shard) {
  std::erase_if(shards_[shard]->sessions, [](const auto& session) { return session->closed(); });
}

Session& Relay::connect(const Key& key, bool mesh, bool not_ideal) {
  auto session = std::make_unique<Session>();
  session->key = key;
  session->shard = shardOf(key);
  Router& r = router(session->shard);
  r.setNow(now_ms);
  if (!r.roomForRead(0)) flushAndRelease(*shards_[session->shard], session->shard);
  Router::Adoption adoption;
  adoption.key = key;
  adoption.mesh = mesh;
  adoption.not_ideal = not_ideal;
  session->client = r.adopt(adoption, serverInfo().data(), static_cast<uint32_t>(serverInfo().size()));
  Shard& shard = *shards_[session->shard];
  shard.by_client[session->client] = session.get();
  shard.sessions.push_back(std::move(session));
  return *shard.sessions.back();
}

void Relay::disconnect(Session& session, CloseReason reason) {
  if (session.closed()) return;
  router(session.shard).close(*session.client, reason);
}

bool Relay::turn(uint32_t index) {
  Shard& shard = *shards_[index];
  Router& r = *shard.router;
  r.setNow(now_ms);
  bool busy = std::exchange(shard.poked, false);
  for (const auto& session : shard.sessions) {
    if (session->closed()) continue;
    if (session->kernel_room > 0 && session->client->queue.hasBacklog()) {
      r.touch(*session->client);
      busy = true;
    }
    if (session->unread.empty()) continue;
    if (session->client->waits() || session->client->closing || !r.mayRead(*session->client)) continue;
    read(shard, *session);
    busy = true;
  }
  uint64_t bits = shard.slot.takeRingBits() | std::exchange(shard.ring_bits, 0) | std::exchange(shard.rings_left, 0);
  busy = busy || bits != 0;
  for (; bits != 0; bits &= bits - 1) {
    const auto from = static_cast<uint32_t>(__builtin_ctzll(bits));
    if (!r.roomForRead(0)) flushAndRelease(shard, index);
    if (r.takeRing(from, shard.rings_in[from], 1024)) shard.rings_left |= uint64_t{1} << from;
    shard.rings_read |= uint64_t{1} << from;
  }
  const uint64_t room = shard.slot.takeRoomBits() | std::exchange(shard.room_bits, 0);
  busy = busy || room != 0;
  resumeBlocked(shard, room);
  busy = r.background() || busy;
  while (Client* client = r.takeResumed()) {
    busy = true;
    if (client->carry != nullptr) consumeWithCarry(shard, *client, nullptr, 0);
  }
  if (!busy) return false;  // as in a shard, what was done without saying so stays undone
  flushAndRelease(shard, index);
  destroyClosing(shard);
  flushAndRelease(shard, index);
  const uint64_t room_made = r.ringsWithRoomMade();  // before the bits, see Shard::lostRoomWakes
  const std::vector<std::string> violations = r.check(room_made & ~(shard.slot.roomBits() | shard.room_bits));
  if (!violations.empty()) shard.violation = violations.front();
  return true;
}

void Relay::tick(uint32_t index) {
  router(index).setNow(now_ms);
  router(index).tick();
}

void Relay::settle() {
  for (bool busy = true; busy;) {
    busy = false;
    for (uint32_t i = 0; i < options_.shards; ++i) busy = turn(i) || busy;
  }
}

void Relay::read(Shard& shard, Session& session) {
  const auto n = static_cast<uint32_t>(std::min<size_t>(session.unread.size(), session.read_limit));
  consumeWithCarry(shard, *session.client, session.unread.data(), n);
  session.unread.erase(session.unread.begin(), session.unread.begin() + n);
}

void Relay::consumeWithCarry(Shard& shard, Client& client, const uint8_t* more, uint32_t more_size) {
  Router& r = *shard.router;
  const uint32_t before = client.carry == nullptr ? 0 : client.carry->size;
  const uint32_t size = before + more_size;
  if (!r.roomForRead(size)) flushAndRelease(shard, shardOf(client.key));
  uint8_t* at = r.arena().take(size);
  if (before > 0) {
    std::memcpy(at, client.carry->bytes(), before);
    r.counters().add(Counter::held_bytes, -int64_t{before});
    r.queues().blocks.give(std::exchange(client.carry, nullptr));
  }
  if (more_size > 0) std::memcpy(at + before, more, more_size);
  const ParseResult result = r.consume(client, at, size);
  if (result.status == ParseStatus::kClosed || result.consumed == size) return;
  const uint32_t left = size - result.consumed;
  client.carry = r.queues().blocks.take(left);
  std::memcpy(client.carry->bytes(), at + result.consumed, left);
  client.carry->size = left;
  r.counters().add(Counter::held_bytes, left);
}

void Relay::resumeBlocked(Shard& shard, uint64_t bits) {
  Router& r = *shard.router;
  for (; bits != 0; bits &= bits - 1) {
    const auto to = static_cast<uint32_t>(__builtin_ctzll(bits));
    while (Client* client = r.takeBlocked(to)) {
      r.setResuming(to);
      consumeWithCarry(shard, *client, nullptr, 0);
      r.setResuming(kNotBlocked);
      if (client->blocked_on == to) break;
    }
  }
}

void Relay::flush(Shard& shard, Client& client) {
  QueueShared& queues = shard.router->queues();
  if (client.closing) {
    client.queue.clear(queues, DropReason::gone_disconnected);
    return;
  }
  Session& session = *shard.by_client.at(&client);
  while (!client.queue.empty() && session.kernel_room > 0) {
    iovec iov[16];
    const uint32_t count = client.queue.gather(queues, iov, 16);
    uint64_t taken = 0;
    for (uint32_t i = 0; i < count && session.kernel_room > 0; ++i) {
      const auto n = static_cast<size_t>(std::min<uint64_t>(iov[i].iov_len, session.kernel_room));
      session.inbox.feed(static_cast<const uint8_t*>(iov[i].iov_base), n);
      if (session.kernel_room != UINT64_MAX) session.kernel_room -= n;
      taken += n;
    }
    client.queue.advance(queues, taken);
  }
  if (!client.queue.empty() && !client.queue.spill(queues)) shard.router->close(client, CloseReason::control_overflow);
}

void Relay::flushAndRelease(Shard& shard, uint32_t index) {
  while (Client* client = shard.router->takeTouched()) flush(shard, *client);
  for (uint64_t bits = shard.router->publish(); bits != 0; bits &= bits - 1) {
    shards_[static_cast<uint32_t>(__builtin_ctzll(bits))]->slot.notifyRing(index);
  }
  for (; shard.rings_read != 0; shard.rings_read &= shard.rings_read - 1) {
    const auto from = static_cast<uint32_t>(__builtin_ctzll(shard.rings_read));
    shard.rings_in[from].release([&] { shards_[from]->slot.notifyRoom(index); });
  }
  shard.router->endTurn();
}

void Relay::destroyClosing(Shard& shard) {
  while (Client* client = shard.router->takeClosing()) {
    Session& session = *shard.by_client.at(client);
    CHECK(client->key == session.key);
    session.reason = client->close_reason;
    session.client = nullptr;
    shard.by_client.erase(client);
    shard.router->destroy(client);
  }
}

}  // namespace model
