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

Fleet::Fleet(const FleetConfig& config) : config_(config), clients_(config.clients.size()) {}

Fleet::~Fleet() {
  for (Client& client : clients_) Close(client);
  if (epoll_ >= 0) close(epoll_);
}

Error Fleet::Open() {
  if (Error error = RaiseDescriptorLimit(clients_.size()); !error.empty()) return error;
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
    const std::string& hello = config_.clients[index].hello;
    if (!WatchOutput(index, false) || !Write(index, reinterpret_cast<const uint8_t*>(hello.data()), hello.size())) {
      return failed(failure_);
    }
    return {};
  }
  if ((events & EPOLLOUT) != 0 && !WritePending(index)) return failed(failure_);
  const bool alive = (events & ~uint32_t{EPOLLOUT}) == 0 || Read(client, [&](uint8_t type, const uint8_t*, uint32_t) {
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

bool Fleet::Write(uint32_t index, const uint8_t* bytes, size_t count) {
  Client& client = clients_[index];
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
  client.state = Client::State::kClosed;
}

bool Fleet::Fail(const char* what, int code) {
  failure_ = code == 0 ? what : std::string(what) + ": " + strerror(code);
  return false;
}

}  // namespace derplane_load
