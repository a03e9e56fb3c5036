// A shard's TLS clients: records are opened into the arena, a turn's frames are sealed and sent at once.
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "connection.h"
#include "shard.h"

namespace derplane {
namespace {

// Plaintext that is sealed before the kernel says whether it takes it. What is sealed cannot be dropped any more, so a
// client that was behind already gets a record at a time.
constexpr size_t kSealAtOnce = 64 << 10;
constexpr size_t kSealWhenBehind = SecureSession::kMaxRecord;
// Twice what is sealed at once: beyond it somebody asks for answers (to KeyUpdate) and does not read them.
constexpr size_t kMaxUnsent = 2 * kSealAtOnce;

}  // namespace

void Shard::startTls(Client& client, Connection& connection) {
  client.tls = new TlsChannel{.session = std::move(connection.tls), .unsent = std::move(connection.output)};
  // As derper counts: a link is not a request to this relay.
  if (client.link == nullptr) router_.counters().add(client.tls->gauge());
  countUnsent(client);
  client.tls->session->setOutput(&sealed_);
  if (hasSealed(client)) router_.touch(client);
  makeHungry(client);  // the poller does not know of bytes that the handshake read
}

ssize_t Shard::receiveSealed(Client& client, iovec* iov, int count, bool& full) {
  TlsChannel& tls = *client.tls;
  if (tls.status == SecureSession::Status::kWantBytes) {
    ssize_t n = 0;
    if (tls.read_once) {
      n = ::recv(client.fd, received_.get(), readSize(client), MSG_DONTWAIT);
      if (n <= 0) return n;
    }
    // After a hangup no event reports the remaining bytes.
    full = !tls.read_once || n == readSize(client) || client.got_hangup;
    tls.read_once = true;
    tls.session->feed(received_.get(), static_cast<size_t>(n));
  }
  // The room is enough: no record brings more bytes than it has, and at most one was begun before.
  size_t total = 0;
  do {
    if (iov->iov_len == 0 && count > 1) {
      ++iov;
      --count;
    }
    size_t got = 0;
    tls.status = tls.session->read(static_cast<uint8_t*>(iov->iov_base), iov->iov_len, got);
    iov->iov_base = static_cast<uint8_t*>(iov->iov_base) + got;
    iov->iov_len -= got;
    total += got;
  } while (tls.status == SecureSession::Status::kOk);
  if (!sealed_.empty()) {  // an answer to KeyUpdate, or an alert
    keepUnsent(client, 0);
    if (client.closing) {
      errno = EAGAIN;
      return -1;
    }
    router_.touch(client);
  }
  if (total > 0) {
    full = full || tls.status != SecureSession::Status::kWantBytes;
    return static_cast<ssize_t>(total);
  }
  if (tls.status == SecureSession::Status::kEnd) return 0;
  if (tls.status == SecureSession::Status::kFailed) router_.close(client, CloseReason::tls_failed);
  errno = EAGAIN;
  return -1;
}

// As writePlain. What is sealed counts as taken.
ssize_t Shard::writeSealed(Client& client) {
  if (hasSealed(client)) return sendUnsent(client) ? 0 : -1;
  iovec iov[kMaxIov];
  const uint32_t count = client.queue.gather(router_.queues(), iov, kMaxIov);
  const size_t taken = client.tls->session->write(iov, count, client.in_stall_list ? kSealWhenBehind : kSealAtOnce);
  if (taken == 0) {
    sealed_.clear();
    return -1;
  }
  ssize_t n = ::send(client.fd, sealed_.data(), sealed_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  router_.counters().add(Counter::writes);
  if (n < 0) {
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
      sealed_.clear();
      return -1;
    }
    client.stalled = errno != EINTR;
    n = 0;
  } else {
    client.stalled = static_cast<size_t>(n) < sealed_.size();
  }
  keepUnsent(client, static_cast<size_t>(n));
  return static_cast<ssize_t>(taken);
}

bool Shard::sendUnsent(Client& client) {
  std::vector<uint8_t>& unsent = client.tls->unsent;
  const ssize_t n = ::send(client.fd, unsent.data(), unsent.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  router_.counters().add(Counter::writes);
  if (n < 0) {
    if (errno == EINTR) return true;
    client.stalled = errno == EAGAIN || errno == EWOULDBLOCK;
    return client.stalled;
  }
  client.stalled = static_cast<size_t>(n) < unsent.size();
  if (client.stalled) {
    unsent.erase(unsent.begin(), unsent.begin() + n);
  } else {
    unsent = std::vector<uint8_t>();  // an idle client owns no buffer; `{}` would only empty it
  }
  countUnsent(client);
  return true;
}

// Keeps what the kernel did not take of what was sealed just now.
void Shard::keepUnsent(Client& client, size_t sent) {
  if (sent < sealed_.size()) {
    std::vector<uint8_t>& unsent = client.tls->unsent;
    unsent.insert(unsent.end(), sealed_.begin() + static_cast<ssize_t>(sent), sealed_.end());
    countUnsent(client);
    if (unsent.size() > kMaxUnsent) router_.close(client, CloseReason::control_overflow);
  }
  sealed_.clear();
}

// What is sealed is memory of the send queues like what is not yet.
void Shard::countUnsent(Client& client) {
  const uint64_t now = client.tls->unsent.size();
  router_.queues().bytes += now - client.sealed_bytes;
  router_.counters().add(Counter::queue_bytes, static_cast<int64_t>(now) - static_cast<int64_t>(client.sealed_bytes));
  client.sealed_bytes = now;
}

// The client goes. It hears that nothing more comes, or what was wrong, if the kernel takes it at once.
void Shard::endTls(Client& client) {
  TlsChannel& tls = *client.tls;
  std::vector<uint8_t> last = std::exchange(tls.unsent, {});
  countUnsent(client);
  if (!client.stalled) {
    tls.session->shutdown();
    last.insert(last.end(), sealed_.begin(), sealed_.end());
    sealed_.clear();
    // A client that reset its connection needs no answer.
    if (!last.empty()) (void)::send(client.fd, last.data(), last.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  }
  if (client.link == nullptr) router_.counters().add(tls.gauge(), -1);
  delete client.tls;
  client.tls = nullptr;
}

}  // namespace derplane
