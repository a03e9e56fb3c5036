// Writes lines to a descriptor on a separate thread: a stalled reader or a hanging disk delays only that thread.
// The descriptor stays in blocking mode, since other processes may share it. What waits has a bound;
// lines beyond it, and lines that the descriptor refuses, are lost and counted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace derplane {

class LineWriter {
 public:
  // Null when the system gives no thread. `max_bytes`: text that may wait to be written.
  static std::unique_ptr<LineWriter> start(int fd, size_t max_bytes);
  // Does not wait for the thread: it may be blocked in a write. It ends once it has written what waits.
  ~LineWriter();
  LineWriter(const LineWriter&) = delete;
  LineWriter& operator=(const LineWriter&) = delete;

  // Queues a line. `notice`, a line that says that `reported` lines were lost, goes in front of it; empty: none. Either
  // both are queued or neither.
  void write(std::string line, std::string notice, uint64_t reported);
  // Waits until all that was queued is written or lost; false after `timeout_ms`.
  bool flush(uint32_t timeout_ms);
  // Lines lost that no queued notice reports yet.
  uint64_t unreported() const;
  // Lines lost since start.
  uint64_t lost() const;
  // Error of the last write that failed; 0 when the lines were lost because too many waited.
  int lastError() const;

 private:
  struct State;
  explicit LineWriter(std::shared_ptr<State> state) : state_(std::move(state)) {}
  static void* run(void* state);

  std::shared_ptr<State> state_;
};

}  // namespace derplane
