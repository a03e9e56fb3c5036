// The keys of one shard. Peers keep their address for life, and a Peer given back stays readable, so that a stale
// pointer can be checked instead of tracked. What many keys needed is given back when they are gone.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "client.h"
#include "step_table.h"

namespace derplane {

// Memory of Peers, in chunks; those that are all free give their pages back, and then read as Peers that are not live.
class PeerMemory {
 public:
  static constexpr uint32_t kPeersPerChunk = 256;

  Peer* take();
  void give(Peer* peer);

 private:
  static constexpr uint32_t kWords = kPeersPerChunk / 64;
  static constexpr uint32_t kNone = UINT32_MAX;

  struct Chunk {
    PageMemory<Peer> peers{kPeersPerChunk};
    uint64_t taken[kWords] = {};
  };

  std::vector<std::unique_ptr<Chunk>> chunks_;
  std::vector<uint16_t> taken_;  // of each chunk; apart, since the search for room reads many
  uint32_t first_free_ = 0;      // no chunk before this one has room
  uint32_t spare_ = kNone;       // a chunk that is all free and keeps its pages, for who comes next
};

class PeerTable {
 public:
  PeerTable() = default;
  ~PeerTable();

  Peer* find(uint64_t hash, const uint8_t* key) const {
    const Place* place = places_.find(hash, [hash, key](const Place& entry) {
      return entry.hash == hash && std::memcmp(entry.peer->key.bytes, key, kKeySize) == 0;
    });
    return place == nullptr ? nullptr : place->peer;
  }
  Peer* findOrAdd(uint64_t hash, const uint8_t* key);
  // The peer must have no connection and no forwarder.
  void remove(Peer* peer);
  uint32_t size() const { return static_cast<uint32_t>(places_.size()); }
  // A bounded part of the work that a change of size left over; false when there is none.
  bool step() { return places_.step(kPlacesPerStep); }

  template <typename Visit>
  void forEach(Visit visit) const {
    places_.forEach([&](const Place& place) { visit(*place.peer); });
  }

 private:
  static constexpr uint32_t kPlacesPerStep = 4096;

  struct Place {
    uint64_t hash;
    Peer* peer;
  };
  struct Traits {
    using Entry = Place;
    static constexpr size_t kMaxLoadQuarters = 2;  // on the path of packets: short runs
    bool isEmpty(const Place& place) const { return place.peer == nullptr; }
    uint64_t hashOf(const Place& place) const { return place.hash; }
  };

  StepTable<Traits> places_;
  PeerMemory memory_;
};

}  // namespace derplane
