#include "relay_core.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <unordered_map>

namespace derplane {
namespace {

struct Registry {
  std::mutex mutex;
  std::unordered_map<uint32_t, std::weak_ptr<RelayCore>> relays;
  uint32_t last_id = 0;
};

// Never destroyed: threads may still end while the process exits.
Registry& registry() {
  static auto* instance = new Registry;
  return *instance;
}

}  // namespace

// --- ShardSlot -----------------------------------------------------------------------------------------------------

ShardSlot::ShardSlot() : event_fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

void ShardSlot::wake() {
  const uint64_t one = 1;
  // Fails only when the counter is full, and then the shard is already woken.
  [[maybe_unused]] const ssize_t n = ::write(event_fd_.get(), &one, sizeof one);
}

bool ShardSlot::raise(Atomic<uint64_t>& bits, uint64_t bit) {
  bits.fetch_or(bit, std::memory_order_release);
  // Pairs with the fence in trySleep: either the shard sees the bit before it sleeps, or we see that it sleeps.
  fullFence();
  if (sleeping_.load(std::memory_order_relaxed) == 0) return false;
  if (sleeping_.exchange(0, std::memory_order_relaxed) == 0) return false;
  wake();
  return true;
}

bool ShardSlot::trySleep() {
  sleeping_.store(1, std::memory_order_relaxed);
  fullFence();
  if (ring_bits_.load(std::memory_order_relaxed) == 0 && room_bits_.load(std::memory_order_relaxed) == 0 &&
      mail_waiting_.load(std::memory_order_relaxed) == 0) {
    return true;
  }
  awake();
  return false;
}

bool ShardSlot::post(Mail mail) {
  {
    const std::lock_guard lock(mutex_);
    if (retired_) return false;
    mail_.push_back(std::move(mail));
  }
  mail_waiting_.store(1, std::memory_order_release);
  fullFence();
  if (sleeping_.load(std::memory_order_relaxed) != 0 && sleeping_.exchange(0, std::memory_order_relaxed) != 0) wake();
  return true;
}

std::vector<Mail> ShardSlot::takeMail() {
  if (mail_waiting_.load(std::memory_order_relaxed) == 0) return {};
  mail_waiting_.store(0, std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  return std::move(mail_);
}

std::vector<Mail> ShardSlot::retire() {
  const std::lock_guard lock(mutex_);
  retired_ = true;
  return std::move(mail_);
}

// --- HandshakeInbox ------------------------------------------------------------------------------------------------

HandshakeInbox::HandshakeInbox() : event_fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

void HandshakeInbox::push(HandshakeRequest request) {
  const std::lock_guard lock(mutex_);
  requests_.push_back(request);
  if (requests_.size() > 1) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(event_fd_.get(), &one, sizeof one);
}

size_t HandshakeInbox::size() {
  const std::lock_guard lock(mutex_);
  return requests_.size();
}

std::vector<HandshakeRequest> HandshakeInbox::take() {
  const std::lock_guard lock(mutex_);
  return std::move(requests_);
}

// --- RelayCore -----------------------------------------------------------------------------------------------------

RelayCore::RelayCore(uint32_t id_in, RelayConfig config_in)
    : id(id_in), config(std::move(config_in)), budget(config.handshakes, config.router.seed) {
  for (uint32_t i = 0; i < config.router.shards; ++i) slots.push_back(std::make_unique<ShardSlot>());
}

RelayCore::~RelayCore() {
  const std::lock_guard lock(registry().mutex);
  registry().relays.erase(id);
}

std::shared_ptr<RelayCore> RelayCore::create(RelayConfig config) {
  const std::lock_guard lock(registry().mutex);
  const uint32_t id = ++registry().last_id;
  std::shared_ptr<RelayCore> core(new RelayCore(id, std::move(config)));
  registry().relays[id] = core;
  return core;
}

std::shared_ptr<RelayCore> RelayCore::find(uint32_t id) {
  const std::lock_guard lock(registry().mutex);
  const auto it = registry().relays.find(id);
  return it == registry().relays.end() ? nullptr : it->second.lock();
}

void RelayCore::startHandshake(HandshakeRequest request) {
  const std::lock_guard lock(handshakes_mutex_);
  if (inboxes_.empty()) {
    unassigned_.push_back(request);
  } else {
    inboxes_[next_inbox_++ % inboxes_.size()]->push(request);
  }
}

bool RelayCore::hasHandshakeThread() {
  const std::lock_guard lock(handshakes_mutex_);
  return !inboxes_.empty();
}

void RelayCore::addInbox(std::shared_ptr<HandshakeInbox> inbox) {
  const std::lock_guard lock(handshakes_mutex_);
  for (const HandshakeRequest& request : unassigned_) inbox->push(request);
  unassigned_.clear();
  if (handshakes_ended_) inbox->push({0, HandshakeStart::kEnd});
  inboxes_.push_back(std::move(inbox));
}

void RelayCore::removeInbox(const std::shared_ptr<HandshakeInbox>& inbox) {
  const std::lock_guard lock(handshakes_mutex_);
  std::erase(inboxes_, inbox);
}

size_t RelayCore::waitingHandshakes() {
  const std::lock_guard lock(handshakes_mutex_);
  size_t waiting = unassigned_.size();
  for (const auto& inbox : inboxes_) waiting += inbox->size();
  return waiting;
}

void RelayCore::endHandshakes() {
  const std::lock_guard lock(handshakes_mutex_);
  handshakes_ended_ = true;
  for (const auto& inbox : inboxes_) inbox->push({0, HandshakeStart::kEnd});
}

void RelayCore::setMeshKey(std::string key) {
  const std::lock_guard lock(mesh_key_mutex_);
  mesh_key_ = std::move(key);
}

bool RelayCore::provesMeshKey(const std::string& offered) {
  const std::lock_guard lock(mesh_key_mutex_);
  if (mesh_key_.empty() || offered.size() != mesh_key_.size()) return false;
  unsigned difference = 0;
  bool zero = true;
  for (size_t i = 0; i < offered.size(); ++i) {
    difference |= static_cast<unsigned>(offered[i] ^ mesh_key_[i]);
    zero = zero && offered[i] == '0';
  }
  return difference == 0 && !zero;
}

uint8_t RelayCore::labelNumber(const std::string& label) {
  static const std::string kOther = "other";
  if (label.empty()) return kNoLabel;
  if (label == kOther) return kOtherLabel;
  {
    const std::lock_guard lock(labels_mutex_);
    for (size_t i = 0; i < labels_.size(); ++i) {
      if (labels_[i] == label) return static_cast<uint8_t>(i + 1);
    }
    if (labels_.size() + 1 < kMaxLabels) {
      labels_.push_back(label);
      return static_cast<uint8_t>(labels_.size());
    }
  }
  if (labels_refused.fetch_add(1, std::memory_order_relaxed) == 0) {
    emit({.kind = Event::Kind::kLabelsFull, .text = label});
  }
  return kOtherLabel;
}

std::vector<std::string> RelayCore::labels() {
  const std::lock_guard lock(labels_mutex_);
  return labels_;
}

void RelayCore::setEventSink(std::function<void()> notify) {
  const std::lock_guard lock(events_mutex_);
  notify_ = std::move(notify);
}

void RelayCore::emit(Event event) {
  const std::lock_guard lock(events_mutex_);
  if (notify_ == nullptr) return;
  const bool of_client = event.kind == Event::Kind::kClosed || event.kind == Event::Kind::kConnected;
  const bool log_only = (of_client || event.kind == Event::Kind::kFailed) && !event.notify;
  if (log_only && log_events_ >= kMaxLogEvents) {
    if (of_client) lost_events.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  log_events_ += log_only ? 1 : 0;
  events_.push_back(std::move(event));
  if (events_.size() == 1) notify_();
}

void RelayCore::emitEnd(const Connection& connection, std::string text) {
  emit({.kind = Event::Kind::kFailed,
        .id = connection.id,
        .address = connection.remote,
        .notify = connection.notify,
        .failure = kMaxFailures,
        .text = std::move(text)});
}

bool RelayCore::emitPacket(Event event) {
  const size_t bytes = event.packet.size() + sizeof(Event);
  const std::lock_guard lock(events_mutex_);
  if (notify_ == nullptr || packet_bytes_ + bytes > kMaxPacketBytes) return false;
  packet_bytes_ += bytes;
  events_.push_back(std::move(event));
  if (events_.size() == 1) notify_();
  return true;
}

std::vector<Event> RelayCore::takeEvents() {
  const std::lock_guard lock(events_mutex_);
  log_events_ = 0;
  packet_bytes_ = 0;
  return std::move(events_);
}

}  // namespace derplane
