#include "line_writer.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>

#include "thread_name.h"

namespace derplane {
namespace {

struct Item {
  std::string text;
  uint64_t lines;  // lost with it: 1 for a line, for a notice those that it reports
  bool notice;
};

// Whether a write ended inside a line, so that the next one must start a new line. Returns 0 or an error.
int writeAll(int fd, const std::string& text, bool& torn) {
  const std::string whole = torn ? "\n" + text : text;
  for (size_t done = 0; done < whole.size();) {
    const ssize_t n = ::write(fd, whole.data() + done, whole.size() - done);
    if (n >= 0) {
      done += static_cast<size_t>(n);
      torn = done > 0 && whole[done - 1] != '\n';
    } else if (errno == EAGAIN) {
      // Somebody else has put the descriptor into non-blocking mode.
      pollfd wanted{fd, POLLOUT, 0};
      ::poll(&wanted, 1, -1);
    } else if (errno != EINTR) {
      return errno;
    }
  }
  return 0;
}

}  // namespace

struct LineWriter::State {
  explicit State(int descriptor, size_t limit) : fd(descriptor), max_bytes(limit) {}

  const int fd;
  const size_t max_bytes;
  mutable std::mutex mutex;
  std::condition_variable work;
  std::condition_variable idle;
  // Guarded by the mutex.
  std::deque<Item> queue;
  size_t bytes = 0;  // of the queue and of what is being written
  bool writing = false;
  bool ending = false;
  uint64_t unreported = 0;
  uint64_t lost = 0;
  int error = 0;

  void lose(const Item& item) {
    unreported += item.lines;
    if (!item.notice) lost += item.lines;
  }

  // The thread. Lines behind one that was refused are lost with it: written, they would come before the notice.
  void serve() {
    bool torn = false;
    std::unique_lock lock(mutex);
    for (;;) {
      work.wait(lock, [this] { return !queue.empty() || ending; });
      if (queue.empty()) return;
      const Item item = std::move(queue.front());
      queue.pop_front();
      writing = true;
      lock.unlock();
      const int failure = writeAll(fd, item.text, torn);
      lock.lock();
      writing = false;
      bytes -= item.text.size();
      if (failure != 0) {
        error = failure;
        lose(item);
        for (const Item& behind : queue) lose(behind);
        queue.clear();
        bytes = 0;
      }
      if (queue.empty()) idle.notify_all();
    }
  }
};

std::unique_ptr<LineWriter> LineWriter::start(int fd, size_t max_bytes) {
  auto state = std::make_shared<State>(fd, max_bytes);
  auto held = std::make_unique<std::shared_ptr<State>>(state);
  // Signals are for the threads that expect them; a file's size limit and a closed pipe are errors of a write here.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread{};
  const int rc = ::pthread_create(&thread, nullptr, run, held.get());
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (rc != 0) return nullptr;
  held.release();  // the thread's
  ::pthread_detach(thread);
  return std::unique_ptr<LineWriter>(new LineWriter(std::move(state)));
}

void* LineWriter::run(void* held) {
  const std::unique_ptr<std::shared_ptr<State>> state(static_cast<std::shared_ptr<State>*>(held));
  nameThisThread("derplane:log");
  (*state)->serve();
  return nullptr;
}

LineWriter::~LineWriter() {
  const std::lock_guard lock(state_->mutex);
  state_->ending = true;
  state_->work.notify_one();
}

void LineWriter::write(std::string line, std::string notice, uint64_t reported) {
  const std::lock_guard lock(state_->mutex);
  if (state_->bytes + notice.size() + line.size() > state_->max_bytes) {
    if (state_->unreported == 0) state_->error = 0;
    state_->lose({std::string(), 1, false});
    return;
  }
  state_->bytes += notice.size() + line.size();
  if (!notice.empty()) {
    state_->unreported -= reported;
    state_->queue.push_back({std::move(notice), reported, true});
  }
  state_->queue.push_back({std::move(line), 1, false});
  state_->work.notify_one();
}

bool LineWriter::flush(uint32_t timeout_ms) {
  std::unique_lock lock(state_->mutex);
  return state_->idle.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                               [this] { return state_->queue.empty() && !state_->writing; });
}

uint64_t LineWriter::unreported() const {
  const std::lock_guard lock(state_->mutex);
  return state_->unreported;
}

uint64_t LineWriter::lost() const {
  const std::lock_guard lock(state_->mutex);
  return state_->lost;
}

int LineWriter::lastError() const {
  const std::lock_guard lock(state_->mutex);
  return state_->error;
}

}  // namespace derplane
