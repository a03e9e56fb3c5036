// A private epoll, edge-triggered, that one thread's libuv loop watches as a single handle: no libuv handle and no
// epoll_ctl per change of interest for a connection. This file is the platform: another system needs another one.
#pragma once

#include <sys/epoll.h>

#include <cstdint>

#include "fd.h"

namespace derplane {

class Poller {
 public:
  static constexpr int kMaxEvents = 256;

  struct Event {
    void* tag;
    bool readable;
    bool writable;
    bool hangup;  // the peer ended its side, or the connection failed: reading will show it
    bool failed;  // the connection is over in both directions
  };

  Poller() : fd_(::epoll_create1(EPOLL_CLOEXEC)) {}

  int fd() const { return fd_.get(); }

  // Reports each change to readable or writable once. A closed descriptor leaves by itself.
  bool add(int fd, void* tag) { return control(EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, tag); }
  bool addReadable(int fd, void* tag) { return control(EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET, tag); }
  void remove(int fd) { control(EPOLL_CTL_DEL, fd, 0, nullptr); }

  // Waits for at most `timeout_ms`; returns the number of events to be asked for with event(i).
  int wait(int timeout_ms) { return ::epoll_wait(fd_.get(), events_, kMaxEvents, timeout_ms); }

  Event event(int i) const {
    const uint32_t e = events_[i].events;
    return {events_[i].data.ptr, (e & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0,
            (e & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0, (e & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0,
            (e & (EPOLLHUP | EPOLLERR)) != 0};
  }

 private:
  bool control(int op, int fd, uint32_t events, void* tag) {
    epoll_event event{};
    event.events = events;
    event.data.ptr = tag;
    return ::epoll_ctl(fd_.get(), op, fd, &event) == 0;
  }

  Fd fd_;
  epoll_event events_[kMaxEvents];
};

}  // namespace derplane
