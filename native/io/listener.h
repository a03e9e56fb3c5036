// A listening TCP socket that accepts in batches on the control plane's loop, and hands connections to the handshake
// threads.
#pragma once

#include <uv.h>

#include <memory>
#include <string>
#include <vector>

#include "address_range.h"
#include "loop_handles.h"
#include "relay_core.h"

namespace derplane {

struct ListenOptions {
  std::string host;  // numeric; `::` serves both families
  int port = 0;
  int fd = -1;  // a listening TCP socket that somebody else opened, in place of host and port; becomes ours
  uint32_t keepalive_ms = 600'000;    // idle time before probes
  uint32_t user_timeout_ms = 15'000;  // TCP_USER_TIMEOUT
  uint32_t tag = 0;                   // the control plane's number for this listener
  std::shared_ptr<SecureServer> tls;  // null: connections are plain
  AddressRanges proxies;              // those that may tell the client's address by a PROXY header
};

class Listener final : public LoopUser {
 public:
  // Gets the name of the errno that made accepting pause.
  using OnTrouble = std::function<void(const char* trouble)>;

  // Null with `error` set to an errno.
  static std::shared_ptr<Listener> open(uv_loop_t* loop, std::shared_ptr<RelayCore> core, const ListenOptions& options,
                                        OnTrouble on_trouble, int& error);
  int port() const { return port_; }
  // `ip:port`; empty once it is closed.
  std::string address() const;

 private:
  static constexpr int kBatch = 64;
  static constexpr int kBacklog = 4096;
  // After a failed accept (no descriptors left), and while no handshake thread runs, the listener rests, instead of
  // failing at full speed. Clients wait in the kernel meanwhile.
  static constexpr uint64_t kRestMs = 100;

  Listener(std::shared_ptr<RelayCore> core, OnTrouble on_trouble)
      : core_(std::move(core)), on_trouble_(std::move(on_trouble)) {}

  int listen(const ListenOptions& options);
  int inherit(int fd);
  void watch();
  void rest();
  void acceptBatch();
  void inherited(int fd);
  void onClose() override;

  std::shared_ptr<RelayCore> core_;
  OnTrouble on_trouble_;
  ListenOptions options_;
  Fd fd_;
  int port_ = 0;
  bool set_each_ = false;  // this kernel's accepted sockets do not inherit the options
  bool inherit_checked_ = false;
  bool shared_ = false;  // others have the socket too, as who opened it
  uv_poll_t poll_ = {};
  uv_timer_t rest_ = {};
};

// Options of every relayed TCP socket: no delay, keepalive with 9 probes 15 s apart, user timeout. 0 or an errno.
int setTcpOptions(int fd, uint32_t keepalive_ms, uint32_t user_timeout_ms);

}  // namespace derplane
