// What Shard uses of libuv, for tests that run real shards: handles that do nothing until the test calls them.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

struct uv_handle_t;
struct uv_poll_t;
struct uv_timer_t;

using uv_close_cb = void (*)(uv_handle_t*);
using uv_poll_cb = void (*)(uv_poll_t*, int status, int events);
using uv_timer_cb = void (*)(uv_timer_t*);

enum uv_poll_event { UV_READABLE = 1 };

// The loop of one shard: a poll, a timer.
struct uv_loop_t {
  uv_poll_t* poll = nullptr;
  uv_timer_t* timer = nullptr;
  std::vector<std::pair<uv_handle_t*, uv_close_cb>> closing;

  // The poll's descriptor is readable.
  void wake();
  // The timer's time has come, if it runs.
  void tick();
  void finishClosing();
};

// All handles begin alike.
struct uv_handle_t {
  void* data;
  uv_loop_t* loop;
};
struct uv_poll_t {
  void* data;
  uv_loop_t* loop;
  uv_poll_cb call;
};
struct uv_timer_t {
  void* data;
  uv_loop_t* loop;
  uv_timer_cb call;
};

int uv_poll_init(uv_loop_t* loop, uv_poll_t* poll, int fd);
int uv_poll_start(uv_poll_t* poll, int events, uv_poll_cb call);
int uv_timer_init(uv_loop_t* loop, uv_timer_t* timer);
int uv_timer_start(uv_timer_t* timer, uv_timer_cb call, uint64_t timeout, uint64_t repeat);
int uv_timer_stop(uv_timer_t* timer);
void uv_close(uv_handle_t* handle, uv_close_cb done);
const char* uv_strerror(int error);
