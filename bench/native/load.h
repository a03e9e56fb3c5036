// What a run is asked to do and what it found. Times are nanoseconds, sizes bytes.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "histogram.h"
#include "wire.h"

namespace derplane_load {

using Key = std::array<uint8_t, kKeyBytes>;

struct ClientConfig {
  Key key;                        // public key, as it stands in the hello
  std::string hello;              // HTTP upgrade with fast start, ClientInfo frame
  std::vector<uint32_t> targets;  // indices of the clients that it sends to; each packet to a random one
};

struct FleetConfig {
  uint16_t port = 0;  // on 127.0.0.1
  bool tls = false;
  std::vector<ClientConfig> clients;
  uint32_t concurrency = 64;    // handshakes in progress at once
  int64_t connect_timeout = 0;  // for all of them together
  pid_t relay_pid = 0;
};

// With `rate` 0 a closed loop: each sender keeps `window` packets outstanding. Else an open loop: `rate` packets per
// second, spread evenly over the senders, whatever arrives.
struct TrafficConfig {
  uint32_t window = 1;
  double rate = 0;
  uint32_t packet_bytes = 1280;
  int64_t warmup = 0;
  int64_t duration = 0;
};

struct TrafficResult {
  int64_t duration = 0;
  int64_t relay_cpu = 0;
  int64_t load_cpu = 0;
  int64_t relay_resident = 0;  // at the end
  uint64_t delivered = 0;
  uint64_t sent = 0;
  uint64_t lost = 0;          // gaps in a sequence, or no sign of it within kStallNanos
  uint64_t late = 0;          // arrived after having been counted as lost
  uint64_t misordered = 0;    // a sequence went backwards
  uint64_t misdelivered = 0;  // at another client than the one it was sent to
  uint64_t wrong_source = 0;  // under another key than its sender's
  uint64_t corrupted = 0;
  uint64_t blocked = 0;  // open loop: due while the sender's socket refused output, not sent
  uint64_t behind = 0;   // open loop: due while the generator itself was too slow, not sent
  uint64_t disconnected = 0;
  Histogram latency;
};

struct ConnectResult {
  int64_t duration = 0;
  int64_t relay_cpu = 0;
  int64_t load_cpu = 0;
};

struct IdleResult {
  int64_t resident_before = 0;
  int64_t resident_third = 0;  // with a third of the clients
  int64_t resident_all = 0;
};

}  // namespace derplane_load
