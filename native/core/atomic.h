// The atomics, fences and locks of the wake-up protocols. They are the standard ones, except in the explorer
// (test/native/explore), which runs the protocols under its own scheduler and memory model.
#pragma once

#ifdef DERPLANE_EXPLORE
#include "../../test/native/explore/explore.h"

namespace derplane {

template <typename T>
using Atomic = explore::Atomic<T>;
using Mutex = explore::Mutex;
inline void fullFence() { explore::fence(); }

}  // namespace derplane
#else
#include <atomic>
#include <mutex>

namespace derplane {

template <typename T>
using Atomic = std::atomic<T>;
using Mutex = std::mutex;
// No load after it is done before a store before it.
inline void fullFence() { std::atomic_thread_fence(std::memory_order_seq_cst); }

}  // namespace derplane
#endif
