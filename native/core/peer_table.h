// The keys of one shard: open addressing with linear probing over (hash, Peer*), at most half full. Peers keep their
// address for life, and a Peer given back stays readable, so that a stale pointer can be checked instead of tracked.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "client.h"

namespace derplane {

class PeerTable {
 public:
  PeerTable();

  Peer* find(uint64_t hash, const uint8_t* key) const;
  Peer* findOrAdd(uint64_t hash, const uint8_t* key);
  // The peer must have no connection and no forwarder.
  void remove(Peer* peer);
  uint32_t size() const { return size_; }

  template <typename Visit>
  void forEach(Visit visit) const {
    for (uint32_t i = 0; i <= mask_; ++i) {
      if (slots_[i].peer != nullptr) visit(*slots_[i].peer);
    }
  }

 private:
  static constexpr uint32_t kPeersPerChunk = 256;

  struct Slot {
    uint64_t hash;
    Peer* peer;
  };

  uint32_t home(uint64_t hash) const { return static_cast<uint32_t>(hash) & mask_; }
  void grow();
  Peer* takePeer();

  std::unique_ptr<Slot[]> slots_;
  uint32_t mask_;
  uint32_t size_ = 0;
  std::vector<std::unique_ptr<Peer[]>> chunks_;
  std::vector<Peer*> free_;
};

}  // namespace derplane
