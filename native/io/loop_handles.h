// The libuv handles of one object, which must all be closed before the object's memory goes and before its loop ends.
#pragma once

#include <uv.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace derplane {

// Base of objects that own handles on a loop. Held by shared_ptr; close() keeps it alive until libuv has let go of
// every handle.
class LoopUser : public std::enable_shared_from_this<LoopUser> {
 public:
  virtual ~LoopUser() = default;

  // Idempotent; every `done` is called, from the loop, when no handle is left.
  void close(std::function<void()> done) {
    if (closed_) {
      if (done) done();
      return;
    }
    if (done) done_.push_back(std::move(done));
    if (closing_) return;
    closing_ = true;
    self_ = shared_from_this();
    onClose();
    open_ = handles_.size();
    if (open_ == 0) {
      finish();
      return;
    }
    for (uv_handle_t* handle : handles_) {
      uv_close(handle, [](uv_handle_t* h) {
        auto* user = static_cast<LoopUser*>(h->data);
        if (--user->open_ == 0) user->finish();
      });
    }
  }

  bool closing() const { return closing_; }

 protected:
  // Called once, before the handles are closed.
  virtual void onClose() = 0;

  // Registers an initialised handle; its data points to this object.
  template <typename Handle>
  void own(Handle* handle) {
    handle->data = this;
    handles_.push_back(reinterpret_cast<uv_handle_t*>(handle));
  }

  // Initialises and registers a timer and the watch of `fd`; false with `error` set when the loop refuses the
  // descriptor.
  bool ownTimerAndPoll(uv_loop_t* loop, uv_timer_t* timer, uv_poll_t* poll, int fd, std::string& error) {
    uv_timer_init(loop, timer);
    own(timer);
    if (const int rc = uv_poll_init(loop, poll, fd); rc != 0) {
      error = uv_strerror(rc);
      return false;
    }
    own(poll);
    return true;
  }

 private:
  void finish() {
    closed_ = true;
    const auto keep = std::move(self_);
    const auto done = std::move(done_);
    for (const auto& call : done) call();
  }

  std::vector<uv_handle_t*> handles_;
  std::vector<std::function<void()>> done_;
  std::shared_ptr<LoopUser> self_;
  size_t open_ = 0;
  bool closing_ = false;
  bool closed_ = false;
};

}  // namespace derplane
