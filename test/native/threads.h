// What tests with a thread per shard share.
#pragma once

#include <poll.h>
#include <unistd.h>

#include "native/io/relay_core.h"

namespace threads {

// Nothing that is awake needs as long as this.
inline constexpr int kLostWakeUpMs = 20'000;

// Sleeps as a shard does. False when nobody woke us for so long that a wake-up must have been lost.
inline bool sleepOn(derplane::ShardSlot& slot) {
  if (!slot.trySleep()) return true;
  pollfd p{.fd = slot.eventFd(), .events = POLLIN, .revents = 0};
  const bool woken = ::poll(&p, 1, kLostWakeUpMs) == 1;
  uint64_t count;
  if (woken && ::read(slot.eventFd(), &count, sizeof count) < 0) return false;
  slot.awake();
  return woken;
}

}  // namespace threads
