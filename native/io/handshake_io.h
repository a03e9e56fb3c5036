// Non-blocking reads and writes for connections in handshake, on one pool thread's loop. Each connection has one deadline, which ends
// whatever it waits for; JavaScript gets every outcome through a callback.
#pragma once

#include <uv.h>

#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "connection.h"
#include "loop_handles.h"
#include "poller.h"

namespace derplane {

// How a wait ended. The names are the codes that JavaScript sees.
enum class IoOutcome { kOk, kClosed, kReset, kTimeout, kBudget, kDiscarded };
const char* ioOutcomeName(IoOutcome outcome);

class HandshakeIo final : public LoopUser {
 public:
  using OnRead = std::function<void(IoOutcome, const uint8_t* bytes, size_t size)>;
  using OnWrite = std::function<void(IoOutcome)>;

  // Runs its argument where JavaScript may be told of outcomes, and lets JavaScript react only after it returned: a reaction may
  // end any job.
  using Enter = std::function<void(const std::function<void()>&)>;

  static std::shared_ptr<HandshakeIo> start(uv_loop_t* loop, Enter enter, std::string& error);

  // False when the connection is unknown or in use.
  bool open(uint64_t id, uint64_t timeout_ms);
  void setTimeout(uint64_t id, uint64_t timeout_ms);
  // `done` is called when at least `min` bytes are buffered, at once if they are; at most `max` are read ahead.
  void read(uint64_t id, size_t min, size_t max, OnRead done);
  void consume(uint64_t id, size_t count);
  void write(uint64_t id, const uint8_t* bytes, size_t size, OnWrite done);
  void release(uint64_t id);
  void discard(uint64_t id);

 private:
  static constexpr uint64_t kTickMs = 50;

  struct Job {
    Connection* connection = nullptr;
    uint64_t id = 0;
    uint64_t deadline_ms = 0;
    size_t min = 0;
    size_t max = 0;
    OnRead on_read = nullptr;
    std::vector<uint8_t> unwritten = {};
    OnWrite on_write = nullptr;
  };

  HandshakeIo() = default;
  bool openHandles(uv_loop_t* loop, std::string& error);
  void onClose() override;
  Job* find(uint64_t id);
  void pollOnce();
  void tick();
  void tryRead(Job& job);
  void tryWrite(Job& job);
  static void finishRead(Job& job, IoOutcome outcome);
  static void finishWrite(Job& job, IoOutcome outcome);
  static void fail(Job& job, IoOutcome outcome);
  void drop(uint64_t id);

  Enter enter_;
  Poller poller_;
  std::unordered_map<uint64_t, std::unique_ptr<Job>> jobs_;
  uv_loop_t* loop_ = nullptr;
  uv_poll_t poll_ = {};
  uv_timer_t timer_ = {};
};

}  // namespace derplane
