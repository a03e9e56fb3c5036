// Binding requests as Tailscale's clients send them, as fast as a server answers.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

namespace derplane_load {

struct StunConfig {
  uint16_t port = 0;     // on 127.0.0.1
  uint32_t window = 1;   // requests outstanding
  int64_t warmup = 0;    // nanoseconds
  int64_t duration = 0;  // nanoseconds measured
  pid_t server_pid = 0;
};

// All of the measured window only.
struct StunResult {
  int64_t duration = 0;
  int64_t server_cpu = 0;
  int64_t load_cpu = 0;
  uint64_t answers = 0;
  uint64_t wrong = 0;  // no answer to a request that is outstanding
  uint64_t lost = 0;   // requests without an answer for a while, which were sent again
};

std::string RunStun(const StunConfig& config, StunResult& result);

}  // namespace derplane_load
