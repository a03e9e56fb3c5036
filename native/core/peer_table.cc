#include "peer_table.h"

namespace derplane {
namespace {

constexpr uint32_t kFirstCapacity = 64;

}  // namespace

PeerTable::PeerTable() : slots_(std::make_unique<Slot[]>(kFirstCapacity)), mask_(kFirstCapacity - 1) {}

Peer* PeerTable::find(uint64_t hash, const uint8_t* key) const {
  for (uint32_t i = home(hash);; i = (i + 1) & mask_) {
    const Slot& slot = slots_[i];
    if (slot.peer == nullptr) return nullptr;
    if (slot.hash == hash && std::memcmp(slot.peer->key.bytes, key, kKeySize) == 0) return slot.peer;
  }
}

Peer* PeerTable::findOrAdd(uint64_t hash, const uint8_t* key) {
  if (Peer* peer = find(hash, key)) return peer;
  if (2 * (size_ + 1) > mask_ + 1) grow();
  Peer* peer = takePeer();
  *peer = Peer{};
  peer->key = Key::from(key);
  peer->hash = hash;
  peer->live = true;
  uint32_t i = home(hash);
  while (slots_[i].peer != nullptr) i = (i + 1) & mask_;
  slots_[i] = {hash, peer};
  ++size_;
  return peer;
}

void PeerTable::remove(Peer* peer) {
  uint32_t gap = home(peer->hash);
  while (slots_[gap].peer != peer) gap = (gap + 1) & mask_;
  slots_[gap].peer = nullptr;
  // Close the gap: move back every later entry of the run that may stand there.
  for (uint32_t i = (gap + 1) & mask_; slots_[i].peer != nullptr; i = (i + 1) & mask_) {
    if (((i - home(slots_[i].hash)) & mask_) < ((i - gap) & mask_)) continue;
    slots_[gap] = slots_[i];
    slots_[i].peer = nullptr;
    gap = i;
  }
  --size_;
  peer->live = false;
  free_.push_back(peer);
}

void PeerTable::grow() {
  const auto old = std::move(slots_);
  const uint32_t old_capacity = mask_ + 1;
  slots_ = std::make_unique<Slot[]>(size_t{2} * old_capacity);
  mask_ = 2 * old_capacity - 1;
  for (uint32_t n = 0; n < old_capacity; ++n) {
    if (old[n].peer == nullptr) continue;
    uint32_t i = home(old[n].hash);
    while (slots_[i].peer != nullptr) i = (i + 1) & mask_;
    slots_[i] = old[n];
  }
}

Peer* PeerTable::takePeer() {
  if (free_.empty()) {
    chunks_.push_back(std::make_unique<Peer[]>(kPeersPerChunk));
    for (uint32_t i = 0; i < kPeersPerChunk; ++i) free_.push_back(&chunks_.back()[kPeersPerChunk - 1 - i]);
  }
  Peer* peer = free_.back();
  free_.pop_back();
  return peer;
}

}  // namespace derplane
