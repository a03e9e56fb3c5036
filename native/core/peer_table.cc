#include "peer_table.h"

#include <bit>

namespace derplane {

Peer* PeerMemory::take() {
  while (first_free_ < taken_.size() && taken_[first_free_] == kPeersPerChunk) ++first_free_;
  if (first_free_ == taken_.size()) {
    chunks_.push_back(std::make_unique<Chunk>());
    taken_.push_back(0);
  }
  Chunk& chunk = *chunks_[first_free_];
  if (spare_ == first_free_) spare_ = kNone;
  uint32_t word = 0;
  while (~chunk.taken[word] == 0) ++word;
  const auto bit = static_cast<uint32_t>(std::countr_one(chunk.taken[word]));
  chunk.taken[word] |= uint64_t{1} << bit;
  ++taken_[first_free_];
  Peer* peer = &chunk.peers[word * 64 + bit];
  peer->chunk = first_free_;
  return peer;
}

void PeerMemory::give(Peer* peer) {
  const uint32_t index = peer->chunk;
  Chunk& chunk = *chunks_[index];
  const auto at = static_cast<uint32_t>(peer - chunk.peers.get());
  chunk.taken[at / 64] &= ~(uint64_t{1} << (at % 64));
  if (index < first_free_) first_free_ = index;
  if (--taken_[index] > 0) return;
  if (spare_ == kNone) {
    spare_ = index;
  } else {
    chunk.peers.discard();
  }
}

PeerTable::~PeerTable() {
  forEach([](Peer& peer) { peer.forwarders = {}; });  // the pages do not own their memory
}

Peer* PeerTable::findOrAdd(uint64_t hash, const uint8_t* key) {
  if (Peer* peer = find(hash, key)) return peer;
  Peer* peer = memory_.take();
  const uint32_t chunk = peer->chunk;
  *peer = Peer{};
  peer->chunk = chunk;
  peer->key = Key::from(key);
  peer->hash = hash;
  peer->live = true;
  places_.insert(hash, {hash, peer});
  return peer;
}

void PeerTable::remove(Peer* peer) {
  places_.erase(places_.find(peer->hash, [peer](const Place& place) { return place.peer == peer; }));
  peer->live = false;
  memory_.give(peer);
}

}  // namespace derplane
