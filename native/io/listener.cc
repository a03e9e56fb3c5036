#include "listener.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "address.h"
#include "inherited.h"

namespace derplane {
namespace {

constexpr int kKeepaliveProbes = 9;
constexpr int kKeepaliveIntervalSeconds = 15;

bool setInt(int fd, int level, int option, int value) {
  return ::setsockopt(fd, level, option, &value, sizeof value) == 0;
}

// Fills in the address, an IPv6 one perhaps with a zone (`fe80::1%eth0`); false when `host` is not a numeric one.
bool toSockaddr(const std::string& host, int port, sockaddr_storage& storage, socklen_t& size) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return false;
  std::memcpy(&storage, found->ai_addr, found->ai_addrlen);
  size = found->ai_addrlen;
  ::freeaddrinfo(found);
  return true;
}

}  // namespace

int setTcpOptions(int fd, uint32_t keepalive_ms, uint32_t user_timeout_ms) {
  const int idle_seconds = std::max(1, static_cast<int>(keepalive_ms / 1000));
  const bool ok = setInt(fd, IPPROTO_TCP, TCP_NODELAY, 1) && setInt(fd, SOL_SOCKET, SO_KEEPALIVE, 1) &&
                  setInt(fd, IPPROTO_TCP, TCP_KEEPIDLE, std::min(idle_seconds, 32767)) &&
                  setInt(fd, IPPROTO_TCP, TCP_KEEPINTVL, kKeepaliveIntervalSeconds) &&
                  setInt(fd, IPPROTO_TCP, TCP_KEEPCNT, kKeepaliveProbes) &&
                  setInt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(user_timeout_ms));
  return ok ? 0 : errno;
}

std::shared_ptr<Listener> Listener::open(uv_loop_t* loop, std::shared_ptr<RelayCore> core, const ListenOptions& options,
                                         OnTrouble on_trouble, int& error) {
  std::shared_ptr<Listener> listener(new Listener(std::move(core), std::move(on_trouble)));
  error = listener->listen(options);
  if (error != 0) return nullptr;
  if (const int rc = uv_poll_init(loop, &listener->poll_, listener->fd_.get()); rc != 0) {
    error = -rc;
    return nullptr;
  }
  listener->own(&listener->poll_);
  uv_timer_init(loop, &listener->rest_);
  listener->own(&listener->rest_);
  listener->watch();
  return listener;
}

int Listener::listen(const ListenOptions& options) {
  options_ = options;
  if (options.fd >= 0) return inherit(options.fd);
  sockaddr_storage storage{};
  socklen_t size = 0;
  if (!toSockaddr(options.host, options.port, storage, size)) return EINVAL;
  fd_.reset(::socket(storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd_.valid()) return errno;
  if (!setInt(fd_.get(), SOL_SOCKET, SO_REUSEADDR, 1)) return errno;
  if (storage.ss_family == AF_INET6 && !setInt(fd_.get(), IPPROTO_IPV6, IPV6_V6ONLY, options.host == "::" ? 0 : 1))
    return errno;
  // Set once here: accepted sockets inherit them, which inherited() verifies.
  if (const int rc = setTcpOptions(fd_.get(), options.keepalive_ms, options.user_timeout_ms); rc != 0) return rc;
  if (::bind(fd_.get(), reinterpret_cast<sockaddr*>(&storage), size) != 0) return errno;
  if (::listen(fd_.get(), kBacklog) != 0) return errno;
  if (::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&storage), &size) != 0) return errno;
  port_ = ntohs(storage.ss_family == AF_INET ? reinterpret_cast<sockaddr_in*>(&storage)->sin_port
                                             : reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port);
  return 0;
}

int Listener::inherit(int fd) {
  InheritedSocket found;
  if (const int rc = describeSocket(fd, found); rc != 0) return rc;
  if (found.type != SOCK_STREAM || !found.listening || found.address.empty()) return EINVAL;
  if (const int rc = prepareInherited(fd); rc != 0) return rc;
  if (const int rc = setTcpOptions(fd, options_.keepalive_ms, options_.user_timeout_ms); rc != 0) return rc;
  fd_.reset(fd);
  shared_ = true;
  port_ = parseAddress(found.address).port;
  return 0;
}

std::string Listener::address() const {
  InheritedSocket found;
  return fd_.valid() && describeSocket(fd_.get(), found) == 0 ? found.address : "";
}

void Listener::watch() {
  uv_poll_start(&poll_, UV_READABLE, [](uv_poll_t* handle, int, int) {
    static_cast<Listener*>(static_cast<LoopUser*>(handle->data))->acceptBatch();
  });
}

void Listener::rest() {
  uv_poll_stop(&poll_);
  uv_timer_start(
      &rest_, [](uv_timer_t* handle) { static_cast<Listener*>(static_cast<LoopUser*>(handle->data))->watch(); },
      kRestMs, 0);
}

void Listener::acceptBatch() {
  // A thread that is being replaced needs descriptors to start. Connections that no thread serves must not hold them.
  if (!core_->hasHandshakeThread()) {
    rest();
    return;
  }
  const char* trouble = nullptr;
  for (int i = 0; i < kBatch; ++i) {
    sockaddr_storage from{};
    socklen_t size = sizeof from;
    Fd fd(::accept4(fd_.get(), reinterpret_cast<sockaddr*>(&from), &size, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd.valid()) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) break;
      trouble = uv_err_name(uv_translate_sys_error(errno));
      if (errno == EMFILE || errno == ENFILE) core_->budget.freeDescriptors(kBatch);
      rest();
      break;
    }
    const Address remote = toAddress(from);
    const bool may_be_proxied = options_.proxies.contains(remote);
    if (!core_->accept_limit.take(uv_now(poll_.loop)) || !core_->budget.admit(may_be_proxied ? Address{} : remote)) {
      if (options_.tls != nullptr) core_->tls_rejected.fetch_add(1, std::memory_order_relaxed);
      continue;
    }
    inherited(fd.get());
    auto connection = std::make_unique<Connection>(core_, std::move(fd), remote);
    connection->listener = options_.tag;
    connection->may_be_proxied = may_be_proxied;
    connection->tls_server = options_.tls;
    if (options_.tls != nullptr) core_->tls_accepted.fetch_add(1, std::memory_order_relaxed);
    core_->startHandshake({ConnectionTable::instance().add(std::move(connection)), HandshakeStart::kRequest});
  }
  if (trouble != nullptr) on_trouble_(trouble);
}

void Listener::inherited(int fd) {
  if (!inherit_checked_) {
    inherit_checked_ = true;
    int no_delay = 0;
    int timeout = 0;
    socklen_t size = sizeof(int);
    ::getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &no_delay, &size);
    ::getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, &size);
    set_each_ = no_delay == 0 || timeout != static_cast<int>(options_.user_timeout_ms);
  }
  if (set_each_) setTcpOptions(fd, options_.keepalive_ms, options_.user_timeout_ms);
}

void Listener::onClose() {
  on_trouble_ = nullptr;
  // The descriptor stays until libuv has let go of it; clients are refused from now on. Those of a shared socket wait
  // for the next process that listens on it.
  if (!shared_) ::shutdown(fd_.get(), SHUT_RDWR);
}

}  // namespace derplane
