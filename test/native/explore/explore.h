// An explorer of thread schedules. It runs real code in fibers, and at each atomic operation chooses which thread goes
// on and which value a load sees, until it has gone through all choices within a bound.
//
// Memory model: C++'s, by views. A location keeps all values stored to it, in order. A thread knows, for each location,
// the oldest value that it may still see; acquire, release and full fences pass that knowledge on, relaxed operations
// do not. So a load may see an old value for as long as nothing forbids it: store buffers are one case of that. Not
// modelled: a load that sees a later store of its own thread, and stores to one location that take effect in another
// order than they are made.
//
// Bound: a thread that could go on and does not (a preemption), and a load that sees an old value, are deviations. All
// runs with at most so many deviations are explored. Switches away from a thread that waits are free.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace explore {

// --- for the code under test -----------------------------------------------------------------------------------------

// `newest` is the value stored last, which is what the memory itself holds.
uint64_t load(const void* location, uint64_t newest, std::memory_order order);
void store(const void* location, uint64_t newest, uint64_t value, std::memory_order order);
// Returns the value that it replaces: the newest, always.
uint64_t update(const void* location, uint64_t newest, const std::function<uint64_t(uint64_t)>& change,
                std::memory_order order);
void fence();

// Works in memory that is only zeroed, as a std::atomic of that size does.
template <typename T>
class Atomic {
 public:
  static constexpr bool is_always_lock_free = true;

  Atomic() = default;
  Atomic(T value) : value_(value) {}
  Atomic(const Atomic&) = delete;
  Atomic& operator=(const Atomic&) = delete;

  T load(std::memory_order order) const { return static_cast<T>(explore::load(this, value_, order)); }
  void store(T value, std::memory_order order) {
    explore::store(this, value_, value, order);
    value_ = value;
  }
  T exchange(T value, std::memory_order order) {
    return change([value](uint64_t) { return value; }, order);
  }
  T fetch_or(T bits, std::memory_order order) {
    return change([bits](uint64_t old) { return old | bits; }, order);
  }

 private:
  T change(const std::function<uint64_t(uint64_t)>& f, std::memory_order order) {
    const auto old = static_cast<T>(update(this, value_, f, order));
    value_ = static_cast<T>(f(value_));
    return old;
  }

  T value_;
};

class Mutex {
 public:
  void lock();
  void unlock();

 private:
  uint64_t locked_ = 0;
};

// --- for scenarios
// -----------------------------------------------------------------------------------------------------

// One run: made anew for each. Its threads end when blockUntil() says that the run is over.
class Case {
 public:
  virtual ~Case() = default;
  // The names of locations, for the trace.
  virtual std::vector<std::pair<const void*, std::string>> names() { return {}; }
  // After every thread has ended or waits for what will not come. What is wrong, or "".
  virtual std::string verdict() = 0;

  std::vector<std::function<void()>> threads;
};

struct Scenario {
  uint32_t deviations;
  std::function<std::unique_ptr<Case>()> make;
};

// False when the run is over.
bool blockUntil(const std::function<bool()>& condition);
bool isOver();
// Ends the run with what is wrong.
void fail(const std::string& what);
// A plain read or write of memory that threads share: a race with another thread's access fails the run.
void reads(const void* memory);
void writes(const void* memory);

struct Result {
  uint64_t runs = 0;
  bool complete = false;  // all runs within the bound were made
  std::string failure;    // of the last run, with its trace
};
Result explore(const Scenario& scenario, uint64_t max_runs);

}  // namespace explore
