// Histograms whose buckets stand among a shard's counters. Bounds are upper ones and those of derper; a value
// beyond the last falls into one more bucket. Buckets hold their own values only: displaying code adds up.
#pragma once

#include <cstdint>

namespace derplane {

inline constexpr uint32_t kWriteFramesBounds[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 25, 50, 100};
inline constexpr uint32_t kMeshBatchBounds[] = {0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000};
inline constexpr uint32_t kMeshLoopBounds[] = {0, 1, 2, 5, 10, 20, 50, 100};

// name, bounds, meaning
#define DERPLANE_HISTOGRAMS(X)                                                                            \
  X(buffered_write_frames, kWriteFramesBounds, "frames per flush of a client, empty flushes not counted") \
  X(mesh_update_batch_size, kMeshBatchBounds, "presence changes that a watcher took at once")             \
  X(mesh_update_loop_count, kMeshLoopBounds, "batches of presence changes per wake of a watcher")

enum class Histogram : uint32_t {
#define DERPLANE_X(name, bounds, help) name,
  DERPLANE_HISTOGRAMS(DERPLANE_X)
#undef DERPLANE_X
      count
};

struct HistogramShape {
  const char* name;
  const uint32_t* bounds;
  uint32_t size;

  // Values that a histogram takes: a bucket per bound, the bucket beyond, the sum.
  constexpr uint32_t values() const { return size + 2; }

  constexpr uint32_t bucketOf(uint64_t value) const {
    // The first bounds equal their places, and small values are the usual ones.
    if (value < size && bounds[value] == value) return static_cast<uint32_t>(value);
    uint32_t i = 0;
    while (i < size && bounds[i] < value) ++i;
    return i;
  }
};

inline constexpr HistogramShape kHistogramShapes[] = {
#define DERPLANE_X(name, bounds, help) {#name, bounds, sizeof(bounds) / sizeof(bounds[0])},
    DERPLANE_HISTOGRAMS(DERPLANE_X)
#undef DERPLANE_X
};

inline constexpr uint32_t kHistograms = static_cast<uint32_t>(Histogram::count);

// Where a histogram's values begin among those of all; with `kHistograms` the number of all.
constexpr uint32_t histogramOffset(uint32_t histogram) {
  uint32_t offset = 0;
  for (uint32_t i = 0; i < histogram; ++i) offset += kHistogramShapes[i].values();
  return offset;
}

}  // namespace derplane
