// A STUN server: one UDP socket on a separate thread.
#pragma once

#include <pthread.h>
#include <sys/socket.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "../core/client.h"
#include "../io/fd.h"
#include "message.h"
#include "rate_bound.h"

namespace derplane {

// One writer, the server's thread; any reader.
struct StunCounters {
  std::atomic<uint64_t> success{0};
  std::atomic<uint64_t> not_stun{0};
  std::atomic<uint64_t> read_error{0};
  std::atomic<uint64_t> write_error{0};
  std::atomic<uint64_t> ipv4{0};
  std::atomic<uint64_t> ipv6{0};
  // Requests for which the kernel did not say which address they were sent to.
  std::atomic<uint64_t> no_local_addr{0};
  // Requests without an answer since their prefix asked too often.
  std::atomic<uint64_t> rate_limited{0};
  // Answers with an address of a private network (RFC 1918, RFC 4193, link-local).
  std::atomic<uint64_t> told_private{0};
};

struct StunOptions {
  // Where to listen; the unspecified IPv6 address takes IPv4, too.
  sockaddr_storage address;
  // Answers that one source prefix gets a second; 0: no bound.
  uint32_t answers_per_second;
  // A bound UDP socket that somebody else opened, in place of `address`; becomes ours. -1: none.
  int fd = -1;
};

// What kept a server from starting.
struct StunFailure {
  const char* syscall = "";
  int error = 0;
};

class StunServer {
 public:
  // Null when it cannot listen; `failure` says why.
  static std::unique_ptr<StunServer> start(const StunOptions& options, StunFailure& failure);
  // Ends the thread, which never blocks for long, and waits for it.
  ~StunServer();
  StunServer(const StunServer&) = delete;
  StunServer& operator=(const StunServer&) = delete;

  const StunCounters& counters() const { return counters_; }
  // Where it listens.
  Address address() const;
  // Error number of the last read that failed; 0 without one.
  int readError() const { return read_error_.load(std::memory_order_relaxed); }
  // The first private address in an answer; all zero before that.
  Address firstPrivate() const;

 private:
  struct Batch;
  StunServer(Fd socket, Fd wake, const StunOptions& options);

  static void* main(void* server);
  void run();
  // Answers what has arrived; false when there was nothing.
  bool turn(Batch& batch);
  // Whether the datagram gets the answer that it leaves in the batch.
  bool prepare(Batch& batch, unsigned index, unsigned answers, uint32_t now_ms);
  void send(Batch& batch, unsigned answers);
  void noteTold(const Address& client);
  // Waits for a datagram, or, with `timeout_ms` not -1, so long.
  void wait(bool for_datagrams, int timeout_ms);

  const Fd socket_;
  const Fd wake_;
  StunRateBound bound_;
  StunCounters counters_;
  std::atomic<bool> ending_{false};
  std::atomic<int> read_error_{0};
  Address first_private_;
  std::atomic<bool> has_private_{false};
  pthread_t thread_ = {};
  bool is_running_ = false;
};

}  // namespace derplane
