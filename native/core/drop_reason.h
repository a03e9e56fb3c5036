// Why a packet was not delivered. The names are derper's metric labels.
#pragma once

#include <cstdint>

namespace derplane {

#define DERPLANE_DROP_REASONS(X)                                                    \
  X(unknown_dest, "no connection and no forwarder for the destination")             \
  X(unknown_dest_on_fwd, "the same, for a packet that a mesh peer forwarded")       \
  X(gone_disconnected, "still queued when the destination left")                    \
  X(queue_head, "oldest of a full queue, dropped for a newer one")                  \
  X(queue_tail, "no room in a byte budget: send queues, held reads or second hops") \
  X(write_error, "the destination's socket failed")                                 \
  X(dup_client, "the destination's connections are all disabled")

enum class DropReason : uint8_t {
#define DERPLANE_X(name, help) name,
  DERPLANE_DROP_REASONS(DERPLANE_X)
#undef DERPLANE_X
      count
};

inline constexpr uint32_t kDropReasons = static_cast<uint32_t>(DropReason::count);

inline const char* dropReasonName(DropReason reason) {
  static constexpr const char* kNames[] = {
#define DERPLANE_X(name, help) #name,
      DERPLANE_DROP_REASONS(DERPLANE_X)
#undef DERPLANE_X
  };
  return kNames[static_cast<uint32_t>(reason)];
}

}  // namespace derplane
