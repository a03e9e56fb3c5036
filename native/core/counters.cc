#include "counters.h"

#include <cstdio>

namespace derplane {

void counterName(uint32_t i, char* out, uint32_t size) {
  static constexpr const char* kNames[] = {
#define DERPLANE_X(name, help) #name,
      DERPLANE_COUNTERS(DERPLANE_X)
#undef DERPLANE_X
  };
  if (i < kDropPacketsBase) {
    std::snprintf(out, size, "%s", kNames[i]);
  } else if (i < kCloseBase) {
    const bool bytes = i >= kDropBytesBase;
    const uint32_t n = i - (bytes ? kDropBytesBase : kDropPacketsBase);
    std::snprintf(out, size, "%s.%s.%s", bytes ? "bytes_dropped" : "packets_dropped",
                  dropReasonName(static_cast<DropReason>(n / kDropKinds)), n % kDropKinds != 0 ? "disco" : "other");
  } else {
    std::snprintf(out, size, "closed.%s", closeReasonName(static_cast<CloseReason>(i - kCloseBase)));
  }
}

}  // namespace derplane
