#include "counters.h"

#include <cstdio>

namespace derplane {
namespace {

void histogramName(uint32_t i, char* out, uint32_t size) {
  const HistogramShape* shape = kHistogramShapes;
  for (; i >= shape->values(); ++shape) i -= shape->values();
  if (i < shape->size) {
    std::snprintf(out, size, "%s.le.%u", shape->name, shape->bounds[i]);
  } else {
    std::snprintf(out, size, "%s.%s", shape->name, i == shape->size ? "le.+Inf" : "sum");
  }
}

}  // namespace

void counterName(uint32_t i, char* out, uint32_t size) {
  static constexpr const char* kNames[] = {
#define DERPLANE_X(name, help) #name,
      DERPLANE_COUNTERS(DERPLANE_X)
#undef DERPLANE_X
  };
  static constexpr const char* kLabelNames[] = {
#define DERPLANE_X(name, help) #name,
      DERPLANE_LABEL_COUNTERS(DERPLANE_X)
#undef DERPLANE_X
  };
  if (i >= kLabelBase) {
    const uint32_t n = i - kLabelBase;
    std::snprintf(out, size, "label.%u.%s", n / kLabelCounters + 1, kLabelNames[n % kLabelCounters]);
  } else if (i < kDropPacketsBase) {
    std::snprintf(out, size, "%s", kNames[i]);
  } else if (i < kCloseBase) {
    const bool bytes = i >= kDropBytesBase;
    const uint32_t n = i - (bytes ? kDropBytesBase : kDropPacketsBase);
    std::snprintf(out, size, "%s.%s.%s", bytes ? "bytes_dropped" : "packets_dropped",
                  dropReasonName(static_cast<DropReason>(n / kDropKinds)), n % kDropKinds != 0 ? "disco" : "other");
  } else if (i < kRttBase) {
    std::snprintf(out, size, "closed.%s", closeReasonName(static_cast<CloseReason>(i - kCloseBase)));
  } else if (i < kHistogramBase) {
    std::snprintf(out, size, "tcp_rtt.%s", kRttBucketNames[i - kRttBase]);
  } else {
    histogramName(i - kHistogramBase, out, size);
  }
}

}  // namespace derplane
