// What it costs a shard that a key leaves. No sockets: the router itself, since connecting and closing would cost more
// than what is measured.
#pragma once

#include <cstdint>
#include <string>

namespace derplane_load {

struct DeparturesConfig {
  uint32_t clients = 0;     // of the shard, besides the keys that leave
  uint32_t receivers = 0;   // of them, those that received from each key that leaves
  uint32_t departures = 0;  // measured
};

struct DeparturesResult {
  int64_t cpu = 0;      // nanoseconds of all departures, their receivers' PeerGone frames included
  int64_t longest = 0;  // nanoseconds of the longest single step
};

std::string RunDepartures(const DeparturesConfig& config, DeparturesResult& result);

}  // namespace derplane_load
