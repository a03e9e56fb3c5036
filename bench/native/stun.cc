#include "stun.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "process_stats.h"

namespace derplane_load {
namespace {

constexpr size_t kRequestBytes = 40;
constexpr size_t kAnswerBytes = 32;  // for IPv4
constexpr size_t kSignedBytes = 32;  // what the fingerprint covers
constexpr size_t kTransactionAt = 8;
constexpr unsigned kBatch = 64;
// Without any answer for so long, what is outstanding counts as lost.
constexpr int kPatienceMs = 1000;

// Type, length, magic cookie, transaction (its first four bytes are the request's number), SOFTWARE `tailnode`,
// FINGERPRINT.
constexpr uint8_t kTemplate[kRequestBytes] = {
    0x00, 0x01, 0x00, 0x14, 0x21, 0x12, 0xa4, 0x42, 0,   0,   0,   0,   0,    0,    0,    0,    0, 0, 0, 0,
    0x80, 0x22, 0x00, 0x08, 't',  'a',  'i',  'l',  'n', 'o', 'd', 'e', 0x80, 0x28, 0x00, 0x04, 0, 0, 0, 0};

uint32_t Crc32(const uint8_t* bytes, size_t size) {
  uint32_t value = 0xffffffff;
  for (size_t i = 0; i < size; i++) {
    value ^= bytes[i];
    for (int bit = 0; bit < 8; bit++) value = (value >> 1) ^ ((value & 1) != 0 ? 0xedb88320u : 0);
  }
  return ~value;
}

using Request = std::array<uint8_t, kRequestBytes>;

Request MakeRequest(uint32_t number) {
  Request request;
  memcpy(request.data(), kTemplate, kRequestBytes);
  memcpy(request.data() + kTransactionAt, &number, sizeof number);
  const uint32_t fingerprint = htonl(Crc32(request.data(), kSignedBytes) ^ 0x5354554e);
  memcpy(request.data() + kRequestBytes - sizeof fingerprint, &fingerprint, sizeof fingerprint);
  return request;
}

// Buffers and headers for one system call, made once.
struct Batch {
  std::array<mmsghdr, kBatch> messages = {};
  std::array<iovec, kBatch> parts = {};
};

class Load {
 public:
  // The requests of a window are made in advance: what is measured must not wait for checksums.
  Load(int fd, uint32_t window) : fd_(fd), is_out_(window, false) {
    for (uint32_t i = 0; i < window; i++) requests_.push_back(MakeRequest(i));
    for (unsigned i = 0; i < kBatch; i++) {
      in_.parts[i] = {.iov_base = answers_[i].data(), .iov_len = answers_[i].size()};
      in_.messages[i].msg_hdr.msg_iov = &in_.parts[i];
      in_.messages[i].msg_hdr.msg_iovlen = 1;
      out_.messages[i].msg_hdr.msg_iov = &out_.parts[i];
      out_.messages[i].msg_hdr.msg_iovlen = 1;
    }
    for (uint32_t i = 0; i < window; i++) due_.push_back(i);
  }

  uint64_t answers = 0;
  uint64_t wrong = 0;
  uint64_t lost = 0;

  // Sends what is due, takes what has come. Empty, or what failed.
  std::string Step() {
    if (std::string error = SendDue(); !error.empty()) return error;
    pollfd wanted{fd_, POLLIN, 0};
    const int ready = ::poll(&wanted, 1, kPatienceMs);
    if (ready < 0) return errno == EINTR ? "" : std::string("poll: ") + strerror(errno);
    if (ready == 0) {
      SendAllAgain();
      return {};
    }
    return Receive();
  }

 private:
  std::string SendDue() {
    while (!due_.empty()) {
      const unsigned count = due_.size() < kBatch ? static_cast<unsigned>(due_.size()) : kBatch;
      const uint32_t* first = due_.data() + due_.size() - count;
      for (unsigned i = 0; i < count; i++)
        out_.parts[i] = {.iov_base = requests_[first[i]].data(), .iov_len = kRequestBytes};
      const int sent = ::sendmmsg(fd_, out_.messages.data(), count, 0);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0) return std::string("sendmmsg: ") + strerror(errno);
      for (int i = 0; i < sent; i++) is_out_[first[i]] = true;
      due_.erase(due_.end() - count, due_.end() - count + sent);
    }
    return {};
  }

  std::string Receive() {
    const int count = ::recvmmsg(fd_, in_.messages.data(), kBatch, MSG_DONTWAIT, nullptr);
    if (count < 0) return errno == EAGAIN || errno == EINTR ? "" : std::string("recvmmsg: ") + strerror(errno);
    for (unsigned i = 0; i < static_cast<unsigned>(count); i++) Take(answers_[i].data(), in_.messages[i].msg_len);
    return {};
  }

  void Take(const uint8_t* answer, size_t size) {
    uint32_t number = 0;
    memcpy(&number, answer + kTransactionAt, sizeof number);
    const bool is_answer = size == kAnswerBytes && answer[0] == 0x01 && answer[1] == 0x01;
    const bool is_known = is_answer && number < is_out_.size();
    if (is_known && !is_out_[number] && late_ > 0) {
      late_--;
      return;
    }
    if (!is_known || !is_out_[number]) {
      wrong++;
      return;
    }
    is_out_[number] = false;
    due_.push_back(number);
    answers++;
  }

  void SendAllAgain() {
    for (uint32_t i = 0; i < is_out_.size(); i++) {
      if (!is_out_[i]) continue;
      lost++;
      late_++;
      due_.push_back(i);
    }
  }

  const int fd_;
  std::vector<Request> requests_;
  std::vector<bool> is_out_;
  std::vector<uint32_t> due_;
  uint64_t late_ = 0;  // second answers that may still come, of requests that were sent again
  std::array<std::array<uint8_t, 128>, kBatch> answers_ = {};
  Batch in_;
  Batch out_;
};

std::string Connect(int fd, uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return {};
  return std::string("connect: ") + strerror(errno);
}

std::string Measure(int fd, const StunConfig& config, StunResult& result) {
  Load load(fd, config.window);
  for (const int64_t end = NowNanos() + config.warmup; NowNanos() < end;)
    if (std::string error = load.Step(); !error.empty()) return error;
  const StunResult before = {.duration = NowNanos(),
                             .server_cpu = CpuNanos(config.server_pid),
                             .load_cpu = ThreadCpuNanos(),
                             .answers = load.answers,
                             .wrong = load.wrong,
                             .lost = load.lost};
  for (const int64_t end = before.duration + config.duration; NowNanos() < end;)
    if (std::string error = load.Step(); !error.empty()) return error;
  result = {.duration = NowNanos() - before.duration,
            .server_cpu = CpuNanos(config.server_pid) - before.server_cpu,
            .load_cpu = ThreadCpuNanos() - before.load_cpu,
            .answers = load.answers - before.answers,
            .wrong = load.wrong - before.wrong,
            .lost = load.lost - before.lost};
  return result.answers == 0 ? "the STUN server answered nothing" : "";
}

}  // namespace

std::string RunStun(const StunConfig& config, StunResult& result) {
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return std::string("socket: ") + strerror(errno);
  std::string error = Connect(fd, config.port);
  if (error.empty()) error = Measure(fd, config, result);
  ::close(fd);
  return error;
}

}  // namespace derplane_load
