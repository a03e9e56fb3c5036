#include "fleet.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

#include "process_stats.h"

namespace derplane_load {
namespace {

constexpr rlim_t kSpareDescriptors = 64;
constexpr int64_t kConnectPoll = 50'000'000;

Error RaiseDescriptorLimit(size_t wanted) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return std::string("getrlimit: ") + strerror(errno);
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return std::string("setrlimit: ") + strerror(errno);
  if (limit.rlim_cur >= wanted + kSpareDescriptors) return {};
  return std::to_string(wanted) + " clients need " + std::to_string(wanted + kSpareDescriptors) +
         " descriptors, the hard limit is " + std::to_string(limit.rlim_cur) +
         "; raise it (ulimit -Hn) or use fewer clients";
}

// 200 clients share an address of 127.0.0.0/8, so that no number of clients exhausts the ports of one.
sockaddr_in SourceAddress(uint32_t index) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(0x7f010001u + index / 200);
  return address;
}

}  // namespace

Fleet::Fleet(const FleetConfig& config) : config_(config), clients_(config.clients.size()) {
  if (!config.tls) return;
  tls_ = TlsContext::Client();
  sealed_ = std::make_unique<uint8_t[]>(kReadBytes);
}

Fleet::~Fleet() {
  for (Client& client : clients_) Close(client);
  if (epoll_ >= 0) close(epoll_);
}

Error Fleet::Open() {
  if (Error error = RaiseDescriptorLimit(clients_.size()); !error.empty()) return error;
  if (tls_.has_value() && !tls_->usable()) return TlsContext::kUnusable;
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  return epoll_ < 0 ? std::string("epoll_create1: ") + strerror(errno) : Error();
}

Error Fleet::Connect(size_t until) {
  const int64_t deadline = NowNanos() + config_.connect_timeout;
  while (ready_ < until) {
    while (started_ < until && started_ - ready_ < config_.concurrency) {
      if (Error error = Start(static_cast<uint32_t>(started_)); !error.empty()) return error;
      ++started_;
    }
    Error failed;
    Error polled = Poll(kConnectPoll, [&](uint32_t index, uint32_t events) {
      if (failed.empty()) failed = Advance(index, events);
    });
    if (!polled.empty()) return polled;
    if (!failed.empty()) return failed;
    if (NowNanos() > deadline) {
      return "only " + std::to_string(ready_) + " of " + std::to_string(until) + " clients were connected in time";
    }
  }
  return {};
}

Error Fleet::Start(uint32_t index) {
  Client& client = clients_[index];
  client.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (client.fd < 0) return std::string("socket: ") + strerror(errno);
  const int on = 1;
  // Resets at the end instead of thousands of sockets in TIME_WAIT.
  const linger reset{1, 0};
  setsockopt(client.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(client.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  setsockopt(client.fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
  const sockaddr_in source = SourceAddress(index);
  if (bind(client.fd, reinterpret_cast<const sockaddr*>(&source), sizeof source) != 0) {
    return std::string("bind to a loopback address: ") + strerror(errno);
  }
  sockaddr_in relay{};
  relay.sin_family = AF_INET;
  relay.sin_port = htons(config_.port);
  relay.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(client.fd, reinterpret_cast<const sockaddr*>(&relay), sizeof relay) != 0 && errno != EINPROGRESS) {
    return "connect to 127.0.0.1:" + std::to_string(config_.port) + ": " + strerror(errno);
  }
  client.state = Client::State::kConnecting;
  client.watching_output = true;
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT;
  event.data.u32 = index;
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, client.fd, &event) != 0) return std::string("epoll_ctl: ") + strerror(errno);
  return {};
}

// One step of a client's handshake.
Error Fleet::Advance(uint32_t index, uint32_t events) {
  Client& client = clients_[index];
  const auto failed = [&](const std::string& why) { return "client " + std::to_string(index) + ": " + why; };
  if (client.state == Client::State::kConnecting) {
    int code = 0;
    socklen_t size = sizeof code;
    getsockopt(client.fd, SOL_SOCKET, SO_ERROR, &code, &size);
    if (code != 0) return failed("connect to 127.0.0.1:" + std::to_string(config_.port) + ": " + strerror(code));
    if ((events & EPOLLOUT) == 0) return {};
    client.state = Client::State::kAwaitingServerKey;
    return WatchOutput(index, false) && Greet(index) ? Error() : failed(failure_);
  }
  if ((events & EPOLLOUT) != 0 && !WritePending(index)) return failed(failure_);
  const bool alive = (events & ~uint32_t{EPOLLOUT}) == 0 || Read(index, [&](uint8_t type, const uint8_t*, uint32_t) {
                       return OnHandshakeFrame(client, type);
                     });
  return alive ? Error() : failed("handshake: " + failure_);
}

bool Fleet::OnHandshakeFrame(Client& client, uint8_t type) {
  switch (client.state) {
    case Client::State::kAwaitingServerKey:
      if (type != kServerKey) break;
      client.state = Client::State::kAwaitingServerInfo;
      return true;
    case Client::State::kAwaitingServerInfo:
      if (type != kServerInfo) break;
      client.state = Client::State::kReady;
      ++ready_;
      return true;
    default:
      return true;  // ready: KeepAlive and the like
  }
  failure_ = "unexpected frame of type " + std::to_string(type);
  return false;
}

// The first bytes of a connection: the hello, or what TLS needs before it.
bool Fleet::Greet(uint32_t index) {
  if (tls_.has_value()) {
    clients_[index].tls = std::make_unique<TlsSession>(*tls_, TlsSession::Role::kClient, wire_);
    return AdvanceTls(index) && SendSealed(index);
  }
  const std::string& hello = config_.clients[index].hello;
  return Write(index, reinterpret_cast<const uint8_t*>(hello.data()), hello.size(), hello.size());
}

// A step of the TLS handshake; the hello follows its last message at once.
bool Fleet::AdvanceTls(uint32_t index) {
  TlsSession& tls = *clients_[index].tls;
  if (tls.established()) return true;
  const std::string& hello = config_.clients[index].hello;
  const auto* const bytes = reinterpret_cast<const uint8_t*>(hello.data());
  if (tls.Advance() && (!tls.established() || tls.Seal(bytes, hello.size()))) return true;
  failure_ = tls.failure();
  return false;
}

// Reads once; returns how many plain bytes that gave, -1 when the connection is over.
ptrdiff_t Fleet::Receive(uint32_t index, uint8_t* out) {
  const Client& client = clients_[index];
  const bool sealed = client.tls != nullptr;
  const ssize_t got = recv(client.fd, sealed ? sealed_.get() : out, kReadBytes, MSG_DONTWAIT);
  if (got > 0) return sealed ? OpenReceived(index, static_cast<size_t>(got), out) : got;
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  Fail(got == 0 ? "the relay closed the connection" : "recv", got == 0 ? 0 : errno);
  return -1;
}

// Opens the `count` bytes that were received; what the session has to say meanwhile is sent.
ptrdiff_t Fleet::OpenReceived(uint32_t index, size_t count, uint8_t* out) {
  TlsSession& tls = *clients_[index].tls;
  wire_.input = sealed_.get();
  wire_.input_left = count;
  if (!AdvanceTls(index)) return -1;
  const ptrdiff_t opened = tls.established() ? tls.Open(out, kOpenBytes) : 0;
  if (opened < 0) failure_ = tls.failure();
  return SendSealed(index) ? opened : -1;
}

bool Fleet::Write(uint32_t index, const uint8_t* bytes, size_t count, size_t unit) {
  TlsSession* const tls = clients_[index].tls.get();
  if (tls == nullptr) return Send(index, bytes, count);
  if (tls->Seal(bytes, count, unit)) return SendSealed(index);
  failure_ = tls->failure();
  return false;
}

bool Fleet::SendSealed(uint32_t index) {
  const bool alive = wire_.output.empty() || Send(index, wire_.output.data(), wire_.output.size());
  wire_.output.clear();
  return alive;
}

// Behind what is pending, else at once.
bool Fleet::Send(uint32_t index, const uint8_t* bytes, size_t count) {
  Client& client = clients_[index];
  if (!client.pending.empty()) {
    const size_t had = client.pending.size();
    client.pending.resize(had + count);
    memcpy(client.pending.data() + had, bytes, count);
    return true;
  }
  const ssize_t sent = send(client.fd, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN && errno != EINTR) return Fail("send", errno);
  const size_t done = sent < 0 ? 0 : static_cast<size_t>(sent);
  if (done == count) return true;
  client.pending.assign(bytes + done, bytes + count);
  client.pending_done = 0;
  return WatchOutput(index, true);
}

bool Fleet::WritePending(uint32_t index) {
  Client& client = clients_[index];
  const size_t left = client.pending.size() - client.pending_done;
  if (left != 0) {
    const ssize_t sent =
        send(client.fd, client.pending.data() + client.pending_done, left, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || errno == EINTR || Fail("send", errno);
    client.pending_done += static_cast<size_t>(sent);
    if (client.pending_done < client.pending.size()) return true;
  }
  client.pending.clear();
  client.pending_done = 0;
  return WatchOutput(index, false);
}

bool Fleet::WatchOutput(uint32_t index, bool on) {
  Client& client = clients_[index];
  if (client.watching_output == on) return true;
  client.watching_output = on;
  epoll_event event{};
  event.events = on ? uint32_t{EPOLLIN | EPOLLOUT} : uint32_t{EPOLLIN};
  event.data.u32 = index;
  return epoll_ctl(epoll_, EPOLL_CTL_MOD, client.fd, &event) == 0 || Fail("epoll_ctl", errno);
}

void Fleet::Close(Client& client) {
  if (client.fd >= 0) close(client.fd);
  client.fd = -1;
  client.tls.reset();
  client.state = Client::State::kClosed;
}

bool Fleet::Fail(const char* what, int code) {
  failure_ = code == 0 ? what : std::string(what) + ": " + strerror(code);
  return false;
}

}  // namespace derplane_load
