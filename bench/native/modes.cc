#include "modes.h"

#include "process_stats.h"
#include "traffic.h"

namespace derplane_load {
namespace {

Error Gone(pid_t relay) { return "the relay (pid " + std::to_string(relay) + ") is gone or not readable"; }

// Leaves the fleet in peace for a while; frames that arrive are read, a lost client is an error.
Error Rest(Fleet& fleet, int64_t duration) {
  const int64_t end = NowNanos() + duration;
  for (int64_t now = NowNanos(); now < end; now = NowNanos()) {
    Error failed;
    Error polled = fleet.Poll(end - now, [&](uint32_t index, uint32_t) {
      const bool alive = fleet.Read(index, [](uint8_t, const uint8_t*, uint32_t) { return true; });
      if (!alive && failed.empty()) failed = "idle client " + std::to_string(index) + ": " + fleet.failure();
    });
    if (!polled.empty()) return polled;
    if (!failed.empty()) return failed;
  }
  return {};
}

}  // namespace

Error RunTraffic(const FleetConfig& config, const TrafficConfig& traffic, TrafficResult& result) {
  Fleet fleet(config);
  if (Error error = fleet.Open(); !error.empty()) return error;
  if (Error error = fleet.Connect(fleet.size()); !error.empty()) return error;
  return Traffic(fleet, traffic).Run(result);
}

Error RunConnect(const FleetConfig& config, size_t warmup, ConnectResult& result) {
  Fleet fleet(config);
  if (Error error = fleet.Open(); !error.empty()) return error;
  if (Error error = fleet.Connect(warmup); !error.empty()) return error;
  const int64_t start = NowNanos();
  const int64_t relay_cpu = CpuNanos(config.relay_pid);
  const int64_t load_cpu = ThreadCpuNanos();
  if (Error error = fleet.Connect(fleet.size()); !error.empty()) return error;
  const int64_t relay_cpu_end = CpuNanos(config.relay_pid);
  if (relay_cpu < 0 || relay_cpu_end < 0) return Gone(config.relay_pid);
  result.relay_cpu = relay_cpu_end - relay_cpu;
  result.load_cpu = ThreadCpuNanos() - load_cpu;
  result.duration = NowNanos() - start;
  return {};
}

Error RunIdle(const FleetConfig& config, int64_t settle, IdleResult& result) {
  Fleet fleet(config);
  if (Error error = fleet.Open(); !error.empty()) return error;
  const struct {
    size_t clients;
    int64_t& resident;
  } steps[] = {
      {0, result.resident_before}, {fleet.size() / 3, result.resident_third}, {fleet.size(), result.resident_all}};
  for (const auto& step : steps) {
    if (Error error = fleet.Connect(step.clients); !error.empty()) return error;
    if (Error error = Rest(fleet, settle); !error.empty()) return error;
    step.resident = ResidentBytes(config.relay_pid);
    if (step.resident < 0) return Gone(config.relay_pid);
  }
  return {};
}

}  // namespace derplane_load
