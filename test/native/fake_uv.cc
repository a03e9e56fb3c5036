#include "fake_uv/uv.h"

void uv_loop_t::wake() { poll->call(poll, 0, UV_READABLE); }

void uv_loop_t::tick() {
  if (timer->call != nullptr) timer->call(timer);
}

void uv_loop_t::finishClosing() {
  for (const auto& [handle, done] : std::exchange(closing, {})) done(handle);
}

int uv_poll_init(uv_loop_t* loop, uv_poll_t* poll, int) {
  *poll = {nullptr, loop, nullptr};
  loop->poll = poll;
  return 0;
}

int uv_poll_start(uv_poll_t* poll, int, uv_poll_cb call) {
  poll->call = call;
  return 0;
}

int uv_timer_init(uv_loop_t* loop, uv_timer_t* timer) {
  *timer = {nullptr, loop, nullptr};
  loop->timer = timer;
  return 0;
}

int uv_timer_start(uv_timer_t* timer, uv_timer_cb call, uint64_t, uint64_t) {
  timer->call = call;
  return 0;
}

int uv_timer_stop(uv_timer_t* timer) {
  timer->call = nullptr;
  return 0;
}

void uv_close(uv_handle_t* handle, uv_close_cb done) { handle->loop->closing.emplace_back(handle, done); }

const char* uv_strerror(int) { return "an error of libuv"; }
