// What another process has used so far.
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace derplane_load {

// CPU time of all threads of a process, ended ones included, in nanoseconds; -1 when there is no such process. This is
// the process's CPU clock: the run time that /proc/PID/task/*/schedstat shows per thread, up to date and without the
// gap that a thread leaves there when it ends.
int64_t CpuNanos(pid_t pid);

// Resident memory of a process in bytes, exact (smaps_rollup, not the batched counters of statm); -1 when unreadable.
int64_t ResidentBytes(pid_t pid);

// CPU time of the calling thread in nanoseconds.
int64_t ThreadCpuNanos();

// Monotonic time in nanoseconds.
int64_t NowNanos();

}  // namespace derplane_load
