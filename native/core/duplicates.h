// Several connections of one key: which of them gets the packets.
#pragma once

#include "client.h"
#include "counters.h"

namespace derplane {

enum class DuplicatePolicy : uint8_t {
  kLastWriterActive,  // who last sent any frame is active
  kDisableFighters,   // who speaks again after another spoke disables the whole set, until it shrinks to one
};

class Duplicates {
 public:
  Duplicates(DuplicatePolicy policy, Counters& counters) : policy_(policy), counters_(counters) {}

  // A connection enters its key's set; it is active at once.
  void join(Peer& peer, Client& client);
  // A connection leaves its key's set.
  void leave(Peer& peer, Client& client);
  // A frame header of a client came in. Only called for keys with several connections.
  void spoke(Peer& peer, Client& client);

 private:
  void elect(Peer& peer);

  DuplicatePolicy policy_;
  Counters& counters_;
  uint64_t speech_ = 0;
};

}  // namespace derplane
