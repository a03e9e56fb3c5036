#include "shard.h"

#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <iterator>

namespace derplane {
namespace {

uint64_t monotonicMs() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1000 + static_cast<uint64_t>(t.tv_nsec) / 1'000'000;
}

uint64_t unixNs() {
  timespec t{};
  ::clock_gettime(CLOCK_REALTIME, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}

RouterConfig routerConfig(const RelayCore& core, uint32_t index) {
  RouterConfig config = core.config.router;
  config.shard = index;
  return config;
}

}  // namespace

Shard::Shard(std::shared_ptr<RelayCore> core, uint32_t index)
    : core_(std::move(core)),
      index_(index),
      slot_(*core_->slots[index]),
      router_(routerConfig(*core_, index), Counters(core_->config.counters[index]), *this) {
  const uint32_t shards = core_->config.router.shards;
  for (uint32_t other = 0; other < shards; ++other) {
    if (other == index) continue;
    router_.setRing(other, RingProducer(core_->config.rings[index * shards + other]));
    rings_in_[other] = RingConsumer(core_->config.rings[other * shards + index]);
  }
}

Shard::~Shard() = default;

std::shared_ptr<Shard> Shard::start(uv_loop_t* loop, std::shared_ptr<RelayCore> core, uint32_t index,
                                    std::string& error) {
  std::shared_ptr<Shard> shard(new Shard(std::move(core), index));
  if (!shard->open(loop, error)) {
    shard->close(nullptr);
    return nullptr;
  }
  return shard;
}

bool Shard::open(uv_loop_t* loop, std::string& error) {
  if (poller_.fd() < 0 || slot_.eventFd() < 0 || !poller_.addReadable(slot_.eventFd(), nullptr)) {
    error = "no descriptor left for the shard's poller";
    return false;
  }
  if (!ownTimerAndPoll(loop, &timer_, &poll_, poller_.fd(), error)) return false;
  uv_poll_start(&poll_, UV_READABLE,
                [](uv_poll_t* handle, int, int) { static_cast<Shard*>(static_cast<LoopUser*>(handle->data))->run(); });
  slot_.wake();  // mail may have come before us
  return true;
}

void Shard::onClose() {
  std::vector<Mail> unread = slot_.retire();
  std::move(mail_.begin() + static_cast<ptrdiff_t>(next_mail_), mail_.end(), std::back_inserter(unread));
  mail_.clear();
  next_mail_ = 0;
  for (Mail& mail : unread) {
    if (mail.kind == Mail::Kind::kAdopt || mail.kind == Mail::Kind::kAdoptLink) refuse(mail);
  }
  router_.setNow(monotonicMs());
  flushAndRelease();  // what clients are owed leaves before they are closed
  router_.closeAll(CloseReason::server_closed);
  finishTurn();
}

bool Shard::forwardToControl(const Key& source, const Key& destination, const uint8_t* packet, uint32_t size) {
  return core_->emitPacket({.kind = Event::Kind::kForward,
                            .key = source,
                            .destination = destination,
                            .packet = std::vector<uint8_t>(packet, packet + size)});
}

void Shard::linkUp(const Client& link, size_t keys) {
  core_->emit({.kind = Event::Kind::kLink, .id = link.id, .peers = keys});
}

// --- turns ---------------------------------------------------------------------------------------------------------

void Shard::run() {
  slot_.awake();
  for (int i = 0; i < kTurnsPerCallback; ++i) {
    if (turn()) continue;
    if (slot_.trySleep()) return;
  }
  slot_.wake();  // more to do: come back after libuv looked at its other handles
}

// Returns whether there was anything to do, so that more may have come meanwhile.
bool Shard::turn() {
  const int ready = poller_.wait(0);
  router_.setNow(monotonicMs());
  router_.setDropWhenFull(router_.counters().get(Counter::held_bytes) > kMaxHeldForRings);
  std::swap(hungry_, hungry_now_);
  for (int i = 0; i < ready; ++i) onPollEvent(poller_.event(i));
  for (Client* client : hungry_now_) {
    client->hungry = false;
    read(*client);
  }
  bool busy = ready > 0 || !hungry_now_.empty();
  hungry_now_.clear();
  busy = takeMail() || busy;
  busy = takeRings() || busy;
  busy = resumeBlocked(slot_.takeRoomBits()) || busy;
  busy = router_.background() || busy;
  busy = resumePaused() || busy;
  busy = measureRtts() || busy;
  busy = reportTraffic() || busy;
  busy = listClients() || busy;
  if (busy) {
    router_.counters().add(Counter::turns);
    finishTurn();
  }
  return busy;
}

void Shard::onPollEvent(const Poller::Event& event) {
  if (event.tag == nullptr) return;  // the event descriptor only ends the wait; edge-triggered, so it need not be read
  Client& client = *static_cast<Client*>(event.tag);
  if (event.hangup) client.got_hangup = true;
  if (event.failed && client.waits()) router_.close(client, CloseReason::reset);
  endIfHungUp(client);
  if (event.writable && client.stalled) {
    client.stalled = false;
    router_.touch(client);
  }
  if (event.readable) read(client);
}

bool Shard::takeRings() {
  uint64_t bits = slot_.takeRingBits() | rings_left_;
  rings_left_ = 0;
  const bool any = bits != 0;
  for (; bits != 0; bits &= bits - 1) {
    const auto from = static_cast<uint32_t>(__builtin_ctzll(bits));
    ensureRoom(0);
    if (router_.takeRing(from, rings_in_[from], kRingRecordsPerTurn)) rings_left_ |= uint64_t{1} << from;
    rings_read_ |= uint64_t{1} << from;
  }
  return any;
}

// Those who wait for the rings in `bits` go on.
bool Shard::resumeBlocked(uint64_t bits) {
  const bool any = bits != 0;
  for (; bits != 0; bits &= bits - 1) {
    const auto shard = static_cast<uint32_t>(__builtin_ctzll(bits));
    while (Client* client = router_.takeBlocked(shard)) {
      ensureRoom(0);
      router_.setResuming(shard);
      consumeCarry(*client);
      router_.setResuming(kNotBlocked);
      if (client->blocked_on == shard) break;
      if (!client->closing && !client->waits()) makeHungry(*client);
    }
  }
  return any;
}

bool Shard::resumePaused() {
  bool any = false;
  while (Client* client = router_.takeResumed()) {
    any = true;
    ensureRoom(0);
    if (client->carry != nullptr) consumeCarry(*client);
    if (!client->closing && !client->waits()) makeHungry(*client);
  }
  return any;
}

bool Shard::takeMail() {
  if (next_mail_ == mail_.size()) {
    mail_ = slot_.takeMail();
    next_mail_ = 0;
  }
  const size_t stop = std::min(mail_.size(), next_mail_ + kMailPerTurn);
  const bool any = next_mail_ < stop;
  while (next_mail_ < stop) {
    Mail& mail = mail_[next_mail_++];
    ensureRoom(static_cast<uint32_t>(mail.bytes.size()));
    handleMail(mail);
  }
  if (any && next_mail_ == mail_.size()) {
    mail_ = std::vector<Mail>();
    next_mail_ = 0;
  }
  return any;
}

void Shard::handleMail(Mail& mail) {
  switch (mail.kind) {
    case Mail::Kind::kAdopt:
    case Mail::Kind::kAdoptLink:
      adopt(mail);
      break;
    case Mail::Kind::kRateLimit:
      router_.setRateLimit(mail.rate, mail.burst);
      for (Client* client : throttled_) client->throttled_until_ms = router_.now();
      break;
    case Mail::Kind::kDrain:
      drain_ = {router_.now(), mail.rate, mail.reconnect_ms, mail.try_ms};
      break;
    case Mail::Kind::kEndLink:
      if (const auto link = links_.find(mail.adoption.id); link != links_.end() && !link->second->closing) {
        router_.close(*link->second, CloseReason::peer_closed);
      }
      break;
    case Mail::Kind::kClosePeer:
      router_.closePeer(mail.key, CloseReason::peer_closed);
      break;
    case Mail::Kind::kSetForwarder:
      router_.setJsForwarder(mail.key, mail.on);
      break;
    case Mail::Kind::kCheck:
      if (mail.on) {
        checks_.push_back(mail.ticket);
      } else {
        core_->emit({.kind = Event::Kind::kCheck, .ticket = mail.ticket, .shard = index_});
      }
      break;
    case Mail::Kind::kTraffic:
      traffic_.push_back(mail.ticket);
      break;
    case Mail::Kind::kClients:
      listings_.push_back({mail.ticket, ClientListing(std::move(mail.query))});
      break;
  }
}

void Shard::adopt(Mail& mail) {
  mail.adoption.fd = mail.connection->fd.get();
  mail.adoption.connected_ns = unixNs();
  // In the tables before ServerInfo is written: from the moment that the client hears it, peers reach the client.
  const bool link = mail.kind == Mail::Kind::kAdoptLink;
  const auto first_size = static_cast<uint32_t>(mail.bytes.size());
  Client* client = link ? router_.adoptLink(mail.adoption, mail.bytes.data(), first_size)
                        : router_.adopt(mail.adoption, mail.bytes.data(), first_size);
  if (client == nullptr) {
    refuse(mail);
    return;
  }
  if (link) {
    links_[client->id] = client;
  } else {
    emitConnected(mail.adoption);
    // The announcement still reaches those in later slots.
    if (drain_.start_ms != 0 && (drain_.all_announced || client->slot < drain_.announced)) {
      router_.announceRestart(client->slot, 1, drain_.reconnect_ms, drain_.try_ms);
    }
  }
  mail.connection->fd.release();
  if (mail.connection->tls != nullptr) startTls(*client, *mail.connection);
  if (!link) startMeasuring(*client);
  if (mail.connection->size() > 0) {
    hold(*client, mail.connection->bytes(), static_cast<uint32_t>(mail.connection->size()));
    if (client->carry != nullptr) consumeCarry(*client);
  }
  mail.connection.reset();
  if (!client->closing && !poller_.add(client->fd, client)) router_.close(*client, CloseReason::no_memory);
}

void Shard::refuse(Mail& mail) {
  if (!mail.adoption.notify) return;
  core_->emit({.kind = Event::Kind::kClosed,
               .id = mail.adoption.id,
               .key = mail.adoption.key,
               .address = mail.adoption.address,
               .reason = slot_.retired() ? CloseReason::server_closed : CloseReason::no_memory,
               .notify = true});
}

// Ends the life of this turn's pieces when less than `bytes` of the arena are left for a read.
void Shard::ensureRoom(uint32_t bytes) {
  if (!router_.roomForRead(bytes)) flushAndRelease();
}

void Shard::flushAndRelease() {
  while (Client* client = router_.takeTouched()) flush(*client);
  for (uint64_t bits = router_.publish(); bits != 0; bits &= bits - 1) {
    ShardSlot& consumer = *core_->slots[static_cast<uint32_t>(__builtin_ctzll(bits))];
    if (consumer.notifyRing(index_)) router_.counters().add(Counter::ring_wakes);
  }
  for (; rings_read_ != 0; rings_read_ &= rings_read_ - 1) {
    const auto from = static_cast<uint32_t>(__builtin_ctzll(rings_read_));
    rings_in_[from].release([&] { core_->slots[from]->notifyRoom(index_); });
  }
  router_.endTurn();
}

void Shard::finishTurn() {
  while (Client* client = router_.takeTouched()) flush(*client);
  destroyClosing();
  flushAndRelease();
  answerChecks();
  publishAverages();
  if (!closing()) armTimer();
}

void Shard::answerChecks() {
  for (const uint32_t ticket : checks_) {
    core_->emit(
        {.kind = Event::Kind::kCheck, .ticket = ticket, .shard = index_, .violations = router_.check(lostRoomWakes())});
  }
  checks_.clear();
}

// Rings that have room for those who wait for it, though no wake-up is on its way: 0, unless the protocol of ring.h is
// broken.
uint64_t Shard::lostRoomWakes() const {
  const uint64_t made = router_.ringsWithRoomMade();  // first: its wake-up happened before, so we see the bit
  return made & ~slot_.roomBits();
}

// The net under the wake-ups: clients that wait in vain go on at the next tick.
void Shard::resumeForgotten() {
  const uint64_t lost = lostRoomWakes();
  router_.counters().add(Counter::lost_wakes, std::popcount(lost));
  resumeBlocked(lost);
}

void Shard::destroyClosing() {
  Client* client = router_.takeClosing();
  if (client == nullptr) return;
  std::erase_if(hungry_, [](const Client* c) { return c->closing; });
  std::erase_if(throttled_, [](const Client* c) { return c->closing; });
  for (; client != nullptr; client = router_.takeClosing()) {
    unstall(*client);
    stopMeasuring(*client);
    if (client->tls != nullptr) endTls(*client);
    poller_.remove(client->fd);  // a duplicate of the descriptor may live on elsewhere, so closing ours is not enough
    ::close(client->fd);
    if (client->link != nullptr) links_.erase(client->id);
    emitClosed(*client);
    router_.destroy(client);
  }
}

void Shard::emitConnected(const Router::Adoption& adoption) {
  if (!core_->client_events.load(std::memory_order_relaxed)) return;
  core_->emit({.kind = Event::Kind::kConnected,
               .id = adoption.id,
               .key = adoption.key,
               .address = adoption.address,
               .mesh = adoption.mesh,
               .prober = adoption.prober,
               .not_ideal = adoption.not_ideal});
}

void Shard::emitClosed(const Client& client) {
  const bool wanted =
      core_->log_clients.load(std::memory_order_relaxed) || core_->client_events.load(std::memory_order_relaxed);
  if (!client.notify && !wanted) return;
  core_->emit({.kind = Event::Kind::kClosed,
               .id = client.id,
               .key = client.key,
               .address = client.address,
               .reason = client.close_reason,
               .notify = client.notify,
               .peers = client.link == nullptr ? 0 : client.link->keys_at_end});
}

void Shard::armTimer() {
  uint64_t interval = router_.clientCount() > 0 || router_.someoneWaitsForRoom() ? router_.tickMs() : 0;
  if (stalled_ != nullptr) interval = std::min(kStallTickMs, router_.tickMs());
  if (!throttled_.empty() || drain_.start_ms != 0) interval = std::min(kThrottleTickMs, router_.tickMs());
  if (interval == timer_interval_) return;
  timer_interval_ = interval;
  if (interval == 0) {
    uv_timer_stop(&timer_);
    return;
  }
  uv_timer_start(
      &timer_, [](uv_timer_t* handle) { static_cast<Shard*>(static_cast<LoopUser*>(handle->data))->onTimer(); },
      interval, interval);
}

void Shard::onTimer() {
  router_.setNow(monotonicMs());
  router_.tick();
  closeStalled();
  resumeForgotten();
  resumeThrottled();
  drain();
  finishTurn();
  run();
}

void Shard::resumeThrottled() {
  if (throttled_.empty()) return;
  std::vector<Client*> waiting;
  waiting.swap(throttled_);  // those that have to wait again come back
  for (Client* client : waiting) {
    if (client->closing) continue;
    if (router_.now() < client->throttled_until_ms) {
      throttled_.push_back(client);
      continue;
    }
    client->throttled_until_ms = 0;
    ensureRoom(0);
    consumeCarry(*client);
    if (!client->closing && !client->waits()) makeHungry(*client);
  }
}

// Asks every client to move to another relay, then closes them one by one over the drain time, so as not to overload
// that relay.
void Shard::drain() {
  if (drain_.start_ms == 0) return;
  if (!drain_.all_announced) {
    ensureRoom(kRestartsPerStep * kRestartingFrameSize);
    drain_.all_announced =
        !router_.announceRestart(drain_.announced, kRestartsPerStep, drain_.reconnect_ms, drain_.try_ms);
    drain_.announced += kRestartsPerStep;
    return;
  }
  const auto passed = static_cast<double>(router_.now() - drain_.start_ms);
  const double share = drain_.duration_ms == 0 ? 1 : std::min(1.0, passed / static_cast<double>(drain_.duration_ms));
  router_.closeShare(share, CloseReason::server_closed);
}

}  // namespace derplane
