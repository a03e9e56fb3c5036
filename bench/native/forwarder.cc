#include "forwarder.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "wire.h"

namespace derplane_load {
namespace {

constexpr uint8_t kClientInfo = 0x02;
constexpr uint8_t kMagicBytes[] = {'D', 'E', 'R', 'P', 0xf0, 0x9f, 0x94, 0x91};
// Nonce, MAC and `{"version":2}`; the load does not open it.
constexpr uint32_t kServerInfoBytes = 24 + 16 + 13;
constexpr size_t kReadBytes = 64 * 1024;
// A read ends at most one record whose beginning came with an earlier one.
constexpr size_t kOpenBytes = kReadBytes + SSL3_RT_MAX_PLAIN_LENGTH;
constexpr size_t kMaxCarry = kHeaderBytes + kKeyBytes + 65536;
constexpr size_t kArenaBytes = 8u << 20;
constexpr int kEventsPerTurn = 256;
constexpr size_t kPiecesPerSend = 256;

std::string Failed(const char* what) { return std::string(what) + ": " + strerror(errno); }

}  // namespace

Forwarder::Forwarder(const Key& public_key, std::optional<TlsContext> tls)
    : public_key_(public_key), arena_(kArenaBytes), tls_(std::move(tls)), sealed_(kReadBytes) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    peers_.resize(limit.rlim_cur);
  }
}

Forwarder::~Forwarder() {
  for (Peer& peer : peers_) {
    if (peer.fd >= 0) close(peer.fd);
  }
  if (listener_ >= 0) close(listener_);
  if (epoll_ >= 0) close(epoll_);
}

std::string Forwarder::Listen() {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (listener_ < 0) return Failed("socket");
  const int on = 1;
  setsockopt(listener_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // inherited by what is accepted
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0) return Failed("bind");
  if (listen(listener_, SOMAXCONN) != 0) return Failed("listen");
  if (getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) return Failed("getsockname");
  port_ = ntohs(address.sin_port);
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_ < 0) return Failed("epoll_create1");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = listener_;
  return epoll_ctl(epoll_, EPOLL_CTL_ADD, listener_, &event) == 0 ? std::string() : Failed("epoll_ctl");
}

std::string Forwarder::Run() {
  epoll_event events[kEventsPerTurn];
  for (;;) {
    const int count = epoll_wait(epoll_, events, kEventsPerTurn, -1);
    if (count < 0 && errno != EINTR) return Failed("epoll_wait");
    arena_used_ = 0;
    for (int i = 0; i < count; ++i) {
      if (events[i].data.fd == listener_) {
        Accept();
      } else {
        OnEvent(events[i].data.fd, events[i].events);
      }
      if (arena_.size() - arena_used_ < kMaxCarry + kOpenBytes) {
        FlushTouched();
        arena_used_ = 0;
      }
    }
    FlushTouched();
  }
}

void Forwarder::Accept() {
  for (;;) {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (static_cast<size_t>(fd) >= peers_.size() || epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) {
      close(fd);
      continue;
    }
    Peer& peer = peers_[static_cast<size_t>(fd)];
    peer.fd = fd;
    if (tls_.has_value()) peer.tls = std::make_unique<TlsSession>(*tls_, TlsSession::Role::kServer, wire_);
  }
}

void Forwarder::OnEvent(int fd, uint32_t events) {
  Peer& peer = peers_[static_cast<size_t>(fd)];
  if (peer.fd < 0) return;
  if ((events & EPOLLOUT) != 0 && !Flush(peer)) return Close(peer);
  if ((events & ~uint32_t{EPOLLOUT}) != 0 && !Read(peer)) Close(peer);
}

bool Forwarder::Read(Peer& peer) {
  uint8_t* const input = arena_.data() + arena_used_;
  size_t have = peer.carry.size();
  std::copy(peer.carry.begin(), peer.carry.end(), input);
  const ptrdiff_t got = Receive(peer, input + have);
  if (got <= 0) return got == 0;
  have += static_cast<size_t>(got);
  size_t at = peer.state == State::kAwaitingHead ? OnHead(peer, input, have) : 0;
  while (peer.state != State::kAwaitingHead && have - at >= kHeaderBytes) {
    const size_t length = ReadLength(input + at) + kHeaderBytes;
    if (length > kMaxCarry) return false;
    if (have - at < length) break;
    if (!OnFrame(peer, input + at, length)) return false;
    at += length;
  }
  if (have - at > kMaxCarry) return false;
  peer.carry.assign(input + at, input + have);
  arena_used_ += have;
  return true;
}

// Reads once; returns how many plain bytes that gave, -1 when the connection is over.
ptrdiff_t Forwarder::Receive(Peer& peer, uint8_t* out) {
  const bool sealed = peer.tls != nullptr;
  const ssize_t got = recv(peer.fd, sealed ? sealed_.data() : out, kReadBytes, 0);
  if (got <= 0) return got < 0 && errno == EAGAIN ? 0 : -1;
  if (!sealed) return got;
  wire_.input = sealed_.data();
  wire_.input_left = static_cast<size_t>(got);
  if (!peer.tls->Advance()) return -1;
  const ptrdiff_t opened = peer.tls->established() ? peer.tls->Open(out, kOpenBytes) : 0;
  return wire_.output.empty() || Flush(peer) ? opened : -1;
}

// Returns the length of the request head once it is there, 0 until then.
size_t Forwarder::OnHead(Peer& peer, const uint8_t* bytes, size_t count) {
  constexpr std::string_view kEnd = "\r\n\r\n";
  const size_t end = std::string_view(reinterpret_cast<const char*>(bytes), count).find(kEnd);
  if (end == std::string_view::npos) return 0;
  std::vector<uint8_t> server_key(kHeaderBytes);
  WriteHeader(server_key.data(), kServerKey, sizeof kMagicBytes + kKeyBytes);
  server_key.insert(server_key.end(), std::begin(kMagicBytes), std::end(kMagicBytes));
  server_key.insert(server_key.end(), public_key_.begin(), public_key_.end());
  peer.state = Send(peer, std::move(server_key)) ? State::kAwaitingClientInfo : State::kAwaitingHead;
  return end + kEnd.size();
}

bool Forwarder::OnFrame(Peer& peer, uint8_t* frame, size_t length) {
  if (length < kHeaderBytes + kKeyBytes) return true;
  Key key;
  memcpy(key.data(), frame + kHeaderBytes, kKeyBytes);
  if (peer.state == State::kAwaitingClientInfo) {
    if (frame[0] != kClientInfo) return false;
    peer.state = State::kReady;
    peer.key = key;
    by_key_[key] = peer.fd;
    std::vector<uint8_t> server_info(kHeaderBytes + kServerInfoBytes);
    WriteHeader(server_info.data(), kServerInfo, kServerInfoBytes);
    return Send(peer, std::move(server_info));
  }
  const auto found = by_key_.find(key);
  if (frame[0] != kSendPacket || found == by_key_.end()) return true;
  frame[0] = kRecvPacket;
  memcpy(frame + kHeaderBytes, peer.key.data(), kKeyBytes);
  Queue(peers_[static_cast<size_t>(found->second)], frame, length);
  return true;
}

void Forwarder::Queue(Peer& peer, uint8_t* bytes, size_t count) {
  if (!peer.touched) {
    peer.touched = true;
    touched_.push_back(peer.fd);
  }
  if (!peer.pieces.empty() && peer.pieces.back().start + peer.pieces.back().length == bytes) {
    peer.pieces.back().length += count;
  } else {
    peer.pieces.push_back(Piece{bytes, count});
  }
}

void Forwarder::FlushTouched() {
  for (const int fd : touched_) {
    Peer& peer = peers_[static_cast<size_t>(fd)];
    peer.touched = false;
    if (peer.fd >= 0 && !Flush(peer)) Close(peer);
  }
  touched_.clear();
}

// What waited first, then this turn's pieces; whatever the kernel refuses waits, without a limit.
bool Forwarder::Flush(Peer& peer) {
  if (peer.tls != nullptr && !SealPieces(peer)) return false;
  iovec parts[kPiecesPerSend];
  size_t next = 0;
  while (!peer.pending.empty() || next < peer.pieces.size()) {
    size_t count = 0;
    size_t bytes = peer.pending.size();
    if (bytes != 0) parts[count++] = iovec{peer.pending.data(), bytes};
    size_t last = next;
    for (; last < peer.pieces.size() && count < kPiecesPerSend; ++last) {
      parts[count++] = iovec{peer.pieces[last].start, peer.pieces[last].length};
      bytes += peer.pieces[last].length;
    }
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = count;
    const ssize_t sent = sendmsg(peer.fd, &message, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return false;
    size_t done = sent < 0 ? 0 : static_cast<size_t>(sent);
    const bool all = done == bytes;
    const size_t from_pending = std::min(done, peer.pending.size());
    peer.pending.erase(peer.pending.begin(), peer.pending.begin() + static_cast<ptrdiff_t>(from_pending));
    done -= from_pending;
    if (all) {
      next = last;
      continue;
    }
    for (; next < peer.pieces.size(); ++next) {
      const Piece& piece = peer.pieces[next];
      const size_t skip = std::min(done, piece.length);
      peer.pending.insert(peer.pending.end(), piece.start + skip, piece.start + piece.length);
      done -= skip;
    }
    break;
  }
  peer.pieces.clear();
  wire_.output.clear();
  return WatchOutput(peer, !peer.pending.empty());
}

// What the session wrote by itself and the turn's pieces in as few records as they fit in: one piece from now on.
bool Forwarder::SealPieces(Peer& peer) {
  plain_.clear();
  for (const Piece& piece : peer.pieces) plain_.insert(plain_.end(), piece.start, piece.start + piece.length);
  if (!peer.tls->Seal(plain_.data(), plain_.size())) return false;
  peer.pieces.clear();
  if (!wire_.output.empty()) peer.pieces.push_back(Piece{wire_.output.data(), wire_.output.size()});
  return true;
}

// Outside of a turn's pieces: handshake frames.
bool Forwarder::Send(Peer& peer, std::vector<uint8_t> bytes) {
  peer.pieces.push_back(Piece{bytes.data(), bytes.size()});
  return Flush(peer);
}

bool Forwarder::WatchOutput(Peer& peer, bool on) {
  if (peer.watching_output == on) return true;
  peer.watching_output = on;
  epoll_event event{};
  event.events = on ? uint32_t{EPOLLIN | EPOLLOUT} : uint32_t{EPOLLIN};
  event.data.fd = peer.fd;
  return epoll_ctl(epoll_, EPOLL_CTL_MOD, peer.fd, &event) == 0;
}

void Forwarder::Close(Peer& peer) {
  by_key_.erase(peer.key);
  close(peer.fd);
  const bool touched = peer.touched;
  peer = Peer();
  peer.touched = touched;
}

}  // namespace derplane_load
