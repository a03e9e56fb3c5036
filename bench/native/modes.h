// The three things that a load can do to a relay. Each connects a fleet, measures, and closes all of it.
#pragma once

#include "fleet.h"
#include "load.h"

namespace derplane_load {

// Connects all clients, then packets among them.
Error RunTraffic(const FleetConfig& fleet, const TrafficConfig& traffic, TrafficResult& result);

// Connects the first `warmup` clients; then CPU and time from the next connect until the last client has read
// ServerInfo.
Error RunConnect(const FleetConfig& fleet, size_t warmup, ConnectResult& result);

// The relay's memory before, with a third of the clients and with all of them, each time after `settle` nanoseconds of
// rest.
Error RunIdle(const FleetConfig& fleet, int64_t settle, IdleResult& result);

}  // namespace derplane_load
