// All client connections of a run, on one epoll, used by one thread.
#pragma once

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "load.h"
#include "tls.h"

namespace derplane_load {

struct Client {
  enum class State : uint8_t { kNew, kConnecting, kAwaitingServerKey, kAwaitingServerInfo, kReady, kClosed };

  int fd = -1;
  State state = State::kNew;
  bool watching_output = false;
  std::vector<uint8_t> carry;    // beginning of a frame whose rest has not arrived
  std::vector<uint8_t> pending;  // output that the kernel did not take; with TLS it is sealed
  size_t pending_done = 0;       // bytes of `pending` that it took since
  std::unique_ptr<TlsSession> tls;
};

// An error is a text; empty means success.
using Error = std::string;

class Fleet {
 public:
  explicit Fleet(const FleetConfig& config);
  ~Fleet();
  Fleet(const Fleet&) = delete;
  Fleet& operator=(const Fleet&) = delete;

  // Makes room for the descriptors and opens the epoll. Call once, first.
  Error Open();

  // Connects clients up to (not including) index `until` and waits until each has read ServerInfo.
  Error Connect(size_t until);

  // Waits at most `timeout` nanoseconds and calls `on_event(client index, epoll events)` for each ready client.
  template <class OnEvent>
  Error Poll(int64_t timeout, OnEvent&& on_event);

  // Reads once and calls `on_frame(type, body, length)` for each whole frame. False when the connection is over or
  // speaks something else than DERP; the reason is in `failure()`.
  template <class OnFrame>
  bool Read(uint32_t index, OnFrame&& on_frame);

  // Sends what the kernel takes, keeps the rest. Only while nothing is pending. With TLS each `unit` bytes become a
  // record, as a client's packets do. False when the connection is over.
  bool Write(uint32_t index, const uint8_t* bytes, size_t count, size_t unit);

  // Continues with what was kept; false when the connection is over.
  bool WritePending(uint32_t index);

  void Close(Client& client);

  size_t size() const { return clients_.size(); }
  Client& client(uint32_t index) { return clients_[index]; }
  const FleetConfig& config() const { return config_; }
  const std::string& failure() const { return failure_; }

 private:
  static constexpr size_t kReadBytes = 64 * 1024;
  // A read ends at most one record whose beginning came with an earlier one.
  static constexpr size_t kOpenBytes = kReadBytes + SSL3_RT_MAX_PLAIN_LENGTH;
  static constexpr int kEventsPerPoll = 512;

  Error Start(uint32_t index);
  Error Advance(uint32_t index, uint32_t events);
  bool Greet(uint32_t index);
  bool AdvanceTls(uint32_t index);
  bool OnHandshakeFrame(Client& client, uint8_t type);
  ptrdiff_t Receive(uint32_t index, uint8_t* out);
  ptrdiff_t OpenReceived(uint32_t index, size_t count, uint8_t* out);
  bool SendSealed(uint32_t index);
  bool Send(uint32_t index, const uint8_t* bytes, size_t count);
  bool WatchOutput(uint32_t index, bool on);
  bool Fail(const char* what, int code);

  const FleetConfig& config_;
  std::vector<Client> clients_;
  size_t started_ = 0;
  size_t ready_ = 0;
  int epoll_ = -1;
  std::string failure_;
  std::unique_ptr<epoll_event[]> events_ = std::make_unique<epoll_event[]>(kEventsPerPoll);
  // A carry is shorter than one frame, so this holds any carry and a read behind it.
  std::unique_ptr<uint8_t[]> input_ = std::make_unique<uint8_t[]>(kHeaderBytes + kMaxFrameBytes + kOpenBytes);
  std::optional<TlsContext> tls_;
  TlsWire wire_;
  std::unique_ptr<uint8_t[]> sealed_;  // a read of a TLS client
};

template <class OnEvent>
Error Fleet::Poll(int64_t timeout, OnEvent&& on_event) {
  const timespec wait{timeout / 1'000'000'000, timeout % 1'000'000'000};
  const int count = epoll_pwait2(epoll_, events_.get(), kEventsPerPoll, &wait, nullptr);
  if (count < 0 && errno != EINTR) return std::string("epoll_pwait2: ") + strerror(errno);
  for (size_t i = 0; std::cmp_less(i, count); ++i) on_event(events_[i].data.u32, events_[i].events);
  return {};
}

template <class OnFrame>
bool Fleet::Read(uint32_t index, OnFrame&& on_frame) {
  Client& client = clients_[index];
  uint8_t* const input = input_.get();
  size_t have = client.carry.size();
  if (have != 0) memcpy(input, client.carry.data(), have);
  const ptrdiff_t got = Receive(index, input + have);
  if (got < 0) return false;
  have += static_cast<size_t>(got);
  size_t at = 0;
  while (have - at >= kHeaderBytes) {
    const uint32_t length = ReadLength(input + at);
    if (length > kMaxFrameBytes) {
      failure_ = "not a DERP frame: " + std::string(reinterpret_cast<char*>(input + at), have - at).substr(0, 80);
      return false;
    }
    if (have - at - kHeaderBytes < length) break;
    if (!on_frame(input[at], input + at + kHeaderBytes, length)) return false;
    at += kHeaderBytes + length;
  }
  client.carry.assign(input + at, input + have);
  return true;
}

}  // namespace derplane_load
