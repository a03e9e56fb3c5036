#include "server.h"

#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "../io/address.h"
#include "../io/inherited.h"
#include "../io/thread_name.h"

namespace derplane {

namespace {

// Datagrams that one system call takes.
constexpr unsigned kBatch = 64;
// Bytes of a datagram that are looked at; Tailscale's requests have 40. Longer ones are cut and so never valid.
constexpr size_t kMaxRequest = 1536;
// Milliseconds without reading after a read that failed.
constexpr int kErrorPause = 1000;

void add(std::atomic<uint64_t>& counter) {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

uint32_t nowMs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return static_cast<uint32_t>(now.tv_sec * 1000 + now.tv_nsec / 1'000'000);
}

uint64_t randomSeed() {
  uint64_t seed = 0;
  while (::getrandom(&seed, sizeof seed, 0) != sizeof seed) continue;
  return seed;
}

bool isPrivate(const Address& address) {
  const uint8_t* ip = address.ip;
  if (isV4(address)) {
    const uint8_t a = ip[12], b = ip[13];
    return a == 10 || (a == 172 && b >= 16 && b < 32) || (a == 192 && b == 168) || (a == 169 && b == 254);
  }
  return (ip[0] & 0xfe) == 0xfc || (ip[0] == 0xfe && (ip[1] & 0xc0) == 0x80);
}

int setOption(int fd, int level, int name, int value) { return ::setsockopt(fd, level, name, &value, sizeof value); }

union Control {
  cmsghdr header;
  uint8_t bytes[CMSG_SPACE(sizeof(in_pktinfo)) + CMSG_SPACE(sizeof(in6_pktinfo))];
};

// Our own address that a request was sent to.
struct LocalAddress {
  int family = 0;  // 0: unknown
  in_addr v4 = {};
  in6_addr v6 = {};
};

// For IPv4 the address that the kernel would answer from, which for a broadcast is one of ours.
LocalAddress localAddressOf(msghdr& message) {
  LocalAddress found;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_PKTINFO) {
      in_pktinfo info;
      std::memcpy(&info, CMSG_DATA(part), sizeof info);
      return {.family = AF_INET, .v4 = info.ipi_spec_dst};
    }
    if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_PKTINFO) {
      in6_pktinfo info;
      std::memcpy(&info, CMSG_DATA(part), sizeof info);
      found = {.family = AF_INET6, .v6 = info.ipi6_addr};
    }
  }
  return found;
}

// Whether an answer can leave from it; else the kernel chooses.
bool isUsable(const LocalAddress& local) {
  if (local.family == AF_INET) return local.v4.s_addr != INADDR_ANY && !IN_MULTICAST(ntohl(local.v4.s_addr));
  return local.family == AF_INET6 && !IN6_IS_ADDR_UNSPECIFIED(&local.v6) && !IN6_IS_ADDR_MULTICAST(&local.v6) &&
         !IN6_IS_ADDR_V4MAPPED(&local.v6);
}

// Lets the answer leave from `local`, over whichever interface.
template <typename Info>
void setSource(msghdr& message, Control& control, int level, int type, const Info& info) {
  message.msg_control = control.bytes;
  message.msg_controllen = CMSG_SPACE(sizeof info);
  std::memset(control.bytes, 0, message.msg_controllen);
  control.header.cmsg_level = level;
  control.header.cmsg_type = type;
  control.header.cmsg_len = CMSG_LEN(sizeof info);
  std::memcpy(CMSG_DATA(&control.header), &info, sizeof info);
}

void leaveFrom(msghdr& message, Control& control, const LocalAddress& local) {
  message.msg_control = nullptr;
  message.msg_controllen = 0;
  if (!isUsable(local)) return;
  if (local.family == AF_INET) {
    setSource(message, control, IPPROTO_IP, IP_PKTINFO,
              in_pktinfo{.ipi_ifindex = 0, .ipi_spec_dst = local.v4, .ipi_addr = {}});
  } else {
    setSource(message, control, IPPROTO_IPV6, IPV6_PKTINFO, in6_pktinfo{.ipi6_addr = local.v6, .ipi6_ifindex = 0});
  }
}

// Asks for the address that each request was sent to; false when that failed.
bool wantLocalAddress(int fd, bool v6) {
  if (v6 && setOption(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1) != 0) return false;
  // On an IPv6 socket it is for IPv4 requests.
  return setOption(fd, IPPROTO_IP, IP_PKTINFO, 1) == 0;
}

// Takes a socket that somebody else opened.
Fd inherit(int fd, StunFailure& failure) {
  const auto failed = [&failure](const char* syscall, int error) {
    failure = {.syscall = syscall, .error = error};
    return Fd();
  };
  InheritedSocket found;
  if (const int error = describeSocket(fd, found); error != 0) return failed("getsockopt", error);
  if (found.type != SOCK_DGRAM || found.address.empty()) return failed("getsockopt", EINVAL);
  if (const int error = prepareInherited(fd); error != 0) return failed("fcntl", error);
  if (!wantLocalAddress(fd, !isV4(parseAddress(found.address)))) return failed("setsockopt", errno);
  return Fd(fd);
}

// A socket at `address`; invalid when a call failed, which `failure` names.
Fd listen(const sockaddr_storage& address, StunFailure& failure) {
  const bool v6 = address.ss_family == AF_INET6;
  const auto failed = [&failure](const char* syscall) {
    failure = {.syscall = syscall, .error = errno};
    return Fd();
  };
  Fd socket(::socket(address.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return failed("socket");
  // Dual stack: the unspecified address stands for both families.
  if (v6 && setOption(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, 0) != 0) return failed("setsockopt");
  if (!wantLocalAddress(socket.get(), v6)) return failed("setsockopt");
  const socklen_t size = v6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0) return failed("bind");
  return socket;
}

}  // namespace

// What one turn works on; made once.
struct StunServer::Batch {
  std::array<mmsghdr, kBatch> in = {};
  std::array<mmsghdr, kBatch> out = {};
  std::array<iovec, kBatch> in_parts = {};
  std::array<iovec, kBatch> out_parts = {};
  std::array<sockaddr_storage, kBatch> sources = {};
  std::array<Control, kBatch> in_controls = {};
  std::array<Control, kBatch> out_controls = {};
  std::array<std::array<uint8_t, kMaxRequest>, kBatch> requests;
  std::array<std::array<uint8_t, kMaxStunAnswer>, kBatch> answers;

  // The kernel writes lengths over those that say what room there is.
  void prepareRead(unsigned index) {
    in_parts[index] = {.iov_base = requests[index].data(), .iov_len = kMaxRequest};
    in[index].msg_hdr = {};
    in[index].msg_hdr.msg_name = &sources[index];
    in[index].msg_hdr.msg_namelen = sizeof sources[index];
    in[index].msg_hdr.msg_iov = &in_parts[index];
    in[index].msg_hdr.msg_iovlen = 1;
    in[index].msg_hdr.msg_control = in_controls[index].bytes;
    in[index].msg_hdr.msg_controllen = sizeof in_controls[index].bytes;
  }
};

std::unique_ptr<StunServer> StunServer::start(const StunOptions& options, StunFailure& failure) {
  Fd socket = options.fd >= 0 ? inherit(options.fd, failure) : listen(options.address, failure);
  if (!socket.valid()) return nullptr;
  Fd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) {
    failure = {.syscall = "eventfd", .error = errno};
    return nullptr;
  }
  std::unique_ptr<StunServer> server(new StunServer(std::move(socket), std::move(wake), options));
  // Signals are for the main thread.
  sigset_t all, before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const int error = ::pthread_create(&server->thread_, nullptr, &StunServer::main, server.get());
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error != 0) {
    failure = {.syscall = "pthread_create", .error = error};
    return nullptr;
  }
  server->is_running_ = true;
  return server;
}

StunServer::StunServer(Fd socket, Fd wake, const StunOptions& options)
    : socket_(std::move(socket)), wake_(std::move(wake)), bound_(options.answers_per_second, randomSeed()) {}

StunServer::~StunServer() {
  if (!is_running_) return;
  ending_.store(true, std::memory_order_release);
  const uint64_t one = 1;
  // The counter of the eventfd has room: nothing else writes to it.
  while (::write(wake_.get(), &one, sizeof one) < 0 && errno == EINTR) continue;
  ::pthread_join(thread_, nullptr);
}

Address StunServer::address() const {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&storage), &size) != 0) return {};
  return toAddress(storage);
}

Address StunServer::firstPrivate() const {
  return has_private_.load(std::memory_order_acquire) ? first_private_ : Address{};
}

void* StunServer::main(void* server) {
  nameThisThread("derplane:stun");
  static_cast<StunServer*>(server)->run();
  return nullptr;
}

void StunServer::run() {
  const auto batch = std::make_unique<Batch>();
  while (!ending_.load(std::memory_order_acquire)) {
    if (!turn(*batch)) wait(true, -1);
  }
}

void StunServer::wait(bool for_datagrams, int timeout_ms) {
  pollfd wanted[2] = {{wake_.get(), POLLIN, 0}, {socket_.get(), POLLIN, 0}};
  ::poll(wanted, for_datagrams ? 2 : 1, timeout_ms);
}

bool StunServer::turn(Batch& batch) {
  for (unsigned i = 0; i < kBatch; i++) batch.prepareRead(i);
  const int received = ::recvmmsg(socket_.get(), batch.in.data(), kBatch, 0, nullptr);
  if (received < 0) {
    if (errno == EAGAIN) return false;
    if (errno == EINTR) return true;
    read_error_.store(errno, std::memory_order_relaxed);
    add(counters_.read_error);
    wait(false, kErrorPause);
    return true;
  }
  const uint32_t now_ms = nowMs();
  unsigned answers = 0;
  for (unsigned i = 0; i < static_cast<unsigned>(received); i++) {
    if (prepare(batch, i, answers, now_ms)) answers++;
  }
  send(batch, answers);
  return true;
}

bool StunServer::prepare(Batch& batch, unsigned index, unsigned answers, uint32_t now_ms) {
  msghdr& request = batch.in[index].msg_hdr;
  const bool is_whole = (request.msg_flags & MSG_TRUNC) == 0;
  const auto transaction =
      parseStunRequest(std::span(batch.requests[index]).first(is_whole ? batch.in[index].msg_len : 0));
  if (!transaction) {
    add(counters_.not_stun);
    return false;
  }
  const Address client = toAddress(batch.sources[index]);
  add(isV4(client) ? counters_.ipv4 : counters_.ipv6);
  if (!bound_.allow(client, now_ms)) {
    add(counters_.rate_limited);
    return false;
  }
  const LocalAddress local = localAddressOf(request);
  if (local.family == 0) add(counters_.no_local_addr);
  msghdr& answer = batch.out[answers].msg_hdr;
  answer = {};
  answer.msg_name = &batch.sources[index];
  answer.msg_namelen = request.msg_namelen;
  const size_t size = writeStunAnswer(*transaction, client, batch.answers[answers]);
  batch.out_parts[answers] = {.iov_base = batch.answers[answers].data(), .iov_len = size};
  answer.msg_iov = &batch.out_parts[answers];
  answer.msg_iovlen = 1;
  leaveFrom(answer, batch.out_controls[answers], local);
  noteTold(client);
  return true;
}

void StunServer::send(Batch& batch, unsigned answers) {
  for (unsigned done = 0; done < answers;) {
    const int sent = ::sendmmsg(socket_.get(), batch.out.data() + done, answers - done, 0);
    if (sent > 0) {
      done += static_cast<unsigned>(sent);
      counters_.success.store(counters_.success.load(std::memory_order_relaxed) + static_cast<unsigned>(sent),
                              std::memory_order_relaxed);
    } else if (errno != EINTR) {
      // The first of them is refused: an address that cannot be reached, or no room. Clients ask again.
      add(counters_.write_error);
      done++;
    }
  }
}

void StunServer::noteTold(const Address& client) {
  if (!isPrivate(client)) return;
  add(counters_.told_private);
  if (has_private_.load(std::memory_order_relaxed)) return;
  first_private_ = client;
  has_private_.store(true, std::memory_order_release);
}

}  // namespace derplane
