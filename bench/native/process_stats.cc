#include "process_stats.h"

#include <time.h>

#include <cstdio>
#include <string>

namespace derplane_load {
namespace {

int64_t ReadClock(clockid_t clock) {
  timespec value{};
  if (clock_gettime(clock, &value) != 0) return -1;
  return int64_t{value.tv_sec} * 1'000'000'000 + value.tv_nsec;
}

}  // namespace

int64_t CpuNanos(pid_t pid) {
  clockid_t clock;
  if (clock_getcpuclockid(pid, &clock) != 0) return -1;
  return ReadClock(clock);
}

int64_t ResidentBytes(pid_t pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/smaps_rollup";
  FILE* file = fopen(path.c_str(), "re");
  if (file == nullptr) return -1;
  int64_t kibibytes = -1;
  char line[256];
  while (fgets(line, sizeof line, file) != nullptr) {
    long long value = 0;
    if (sscanf(line, "Rss: %lld kB", &value) == 1) {
      kibibytes = value;
      break;
    }
  }
  fclose(file);
  return kibibytes < 0 ? -1 : kibibytes * 1024;
}

int64_t ThreadCpuNanos() { return ReadClock(CLOCK_THREAD_CPUTIME_ID); }

int64_t NowNanos() { return ReadClock(CLOCK_MONOTONIC); }

}  // namespace derplane_load
