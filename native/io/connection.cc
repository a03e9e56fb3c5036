#include "connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "address.h"
#include "proxy_header.h"
#include "relay_core.h"

namespace derplane {
namespace {

// Most handshakes fit; a large ClientInfo comes in several reads.
constexpr size_t kChunk = 4096;
// Read at once of a TLS connection in its handshake: a record with its header and tag fits.
constexpr size_t kSealedChunk = SecureSession::kMaxRecord + 512;

}  // namespace

Connection::Connection(std::shared_ptr<RelayCore> relay, Fd fd_in, Address remote_in)
    : fd(std::move(fd_in)), remote(remote_in), relay_(std::move(relay)) {
  relay_->budget.opened();
}

Connection::~Connection() {
  relay_->budget.leave(*this);
  relay_->budget.closed(reserved_);
  if (evicted()) relay_->budget.ended(evicted_bytes_);
  if (greeted_over_tls_ != nullptr) greeted_over_tls_->fetch_sub(1, std::memory_order_relaxed);
}

void Connection::evict() {
  evicted_bytes_ = reserved_;
  relay_->budget.ending(evicted_bytes_);
  evicted_.store(true, std::memory_order_relaxed);
  resetOnClose();
  ::shutdown(fd.get(), SHUT_RD);
}

void Connection::resetOnClose() {
  const linger at_once{1, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

void Connection::upgraded() {
  number = relay_->accepts.fetch_add(1, std::memory_order_relaxed) + 1;
  if (tls == nullptr || !tls->established() || greeted_over_tls_ != nullptr) return;
  const bool is13 = tls->isTls13();
  (is13 ? relay_->accepts_tls13 : relay_->accepts_tls12).fetch_add(1, std::memory_order_relaxed);
  greeted_over_tls_ = is13 ? &relay_->greeted_tls13 : &relay_->greeted_tls12;
  greeted_over_tls_->fetch_add(1, std::memory_order_relaxed);
}

void Connection::consume(size_t count) {
  start_ += std::min(count, size());
  if (start_ == buffer_.size()) {
    buffer_.clear();
    start_ = 0;
  }
}

bool Connection::reserve(size_t size) {
  if (size <= reserved_) return true;
  if (!relay_->budget.reserve(size - reserved_)) return false;
  reserved_ = size;
  return true;
}

Connection::ReadResult Connection::read(size_t max) {
  if (may_be_proxied) return readProxyHeader();
  if (tls == nullptr) return readPlain(max);
  // A handshake that waited for its certificate goes on without new bytes.
  ReadResult result = open();
  if (result != ReadResult::kNothing) return result;
  uint8_t sealed[kSealedChunk];
  ssize_t n;
  do {
    n = ::recv(fd.get(), sealed, sizeof sealed, MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  if (n == 0) return ReadResult::kEnd;
  if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? ReadResult::kNothing : ReadResult::kReset;
  return takeSealed(sealed, static_cast<size_t>(n));
}

Connection::ReadResult Connection::takeSealed(const uint8_t* data, size_t size) {
  if (!tls->established() && !reserve(buffer_.size() + SecureSession::kHandshakeMemory)) return ReadResult::kBudget;
  tls->feed(data, size);
  const ReadResult result = open();
  return result == ReadResult::kNothing ? ReadResult::kBytes : result;
}

// What follows the header was read with it, and belongs to the client.
Connection::ReadResult Connection::readProxyHeader() {
  uint8_t chunk[kMaxProxyHeader];
  ssize_t n;
  do {
    n = ::recv(fd.get(), chunk, sizeof chunk, MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  if (n == 0) return ReadResult::kEnd;
  if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? ReadResult::kNothing : ReadResult::kReset;
  proxy_bytes_.insert(proxy_bytes_.end(), chunk, chunk + n);
  const ProxyHeader header = derplane::readProxyHeader(proxy_bytes_);
  if (header.state == ProxyHeader::State::kMore) return ReadResult::kBytes;
  if (header.state == ProxyHeader::State::kBad) return ReadResult::kProxy;
  may_be_proxied = false;
  const bool told = header.state == ProxyHeader::State::kAddress;
  ConnectionTable::instance().setRemote(id, told ? header.client : remote);
  const std::vector<uint8_t> read = std::exchange(proxy_bytes_, {});
  const uint8_t* const rest = read.data() + header.size;
  const size_t size = read.size() - header.size;
  if (size == 0) return ReadResult::kBytes;
  if (tls != nullptr) return takeSealed(rest, size);
  return append(rest, size) ? ReadResult::kBytes : ReadResult::kBudget;
}

// Opens all records that are there. What ends the connection shows when the bytes before it have been seen.
Connection::ReadResult Connection::open() {
  const size_t size_before = size();
  for (;;) {
    const size_t before = buffer_.size();
    if (!reserve(before + kChunk)) return ReadResult::kBudget;
    buffer_.resize(before + kChunk);
    size_t got = 0;
    const SecureSession::Status status = tls->read(buffer_.data() + before, kChunk, got);
    buffer_.resize(before + got);
    if (got == 0 && size() > size_before) return ReadResult::kBytes;
    switch (status) {
      case SecureSession::Status::kOk:
        break;
      case SecureSession::Status::kWantBytes:
        return ReadResult::kNothing;
      case SecureSession::Status::kWantCertificate:
        return ReadResult::kWantCertificate;
      case SecureSession::Status::kEnd:
        return ReadResult::kEnd;
      case SecureSession::Status::kFailed:
        return ReadResult::kTls;
    }
  }
}

bool Connection::beginTls() {
  if (tls_server == nullptr || tls != nullptr) return true;
  tls = tls_server->accept(localAddressText(fd.get()), relay_->id);
  if (tls == nullptr) return false;
  tls->setOutput(&output);
  return true;
}

bool Connection::write(const uint8_t* data, size_t size) {
  if (tls == nullptr) {
    output.insert(output.end(), data, data + size);
    return true;
  }
  const iovec iov{const_cast<uint8_t*>(data), size};
  return size == 0 || tls->write(&iov, 1, size) == size;
}

Connection::SendResult Connection::send() {
  size_t sent = 0;
  SendResult result = SendResult::kDone;
  while (sent < output.size()) {
    const ssize_t n = ::send(fd.get(), output.data() + sent, output.size() - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) {
      sent += static_cast<size_t>(n);
    } else if (errno != EINTR) {
      result = errno == EAGAIN || errno == EWOULDBLOCK ? SendResult::kMore : SendResult::kReset;
      break;
    }
  }
  output.erase(output.begin(), output.begin() + static_cast<ssize_t>(sent));
  return result;
}

Connection::ReadResult Connection::readPlain(size_t max) {
  const size_t before = buffer_.size();
  const size_t chunk = std::min(max, std::max(kChunk, before));
  if (!reserve(before + chunk)) return ReadResult::kBudget;
  buffer_.resize(before + chunk);
  ssize_t n;
  do {
    n = ::recv(fd.get(), buffer_.data() + before, chunk, MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  buffer_.resize(before + static_cast<size_t>(std::max<ssize_t>(n, 0)));
  if (n > 0) return ReadResult::kBytes;
  if (n == 0) return ReadResult::kEnd;
  return errno == EAGAIN || errno == EWOULDBLOCK ? ReadResult::kNothing : ReadResult::kReset;
}

bool Connection::append(const uint8_t* data, size_t size) {
  if (!reserve(buffer_.size() + size)) return false;
  buffer_.insert(buffer_.end(), data, data + size);
  return true;
}

ConnectionTable& ConnectionTable::instance() {
  static auto* table = new ConnectionTable;
  return *table;
}

uint64_t ConnectionTable::add(std::unique_ptr<Connection> connection) {
  const std::lock_guard lock(mutex_);
  const uint64_t id = ++last_id_;
  connection->id = id;
  if (!connection->exempt) connection->relay().budget.join(*connection, connection->spoke);
  entries_[id].connection = std::move(connection);
  return id;
}

std::unique_ptr<Connection> ConnectionTable::take(uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(id);
  if (it == entries_.end() || it->second.borrowed) return nullptr;
  return takeOut(it);
}

Connection* ConnectionTable::borrow(uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(id);
  if (it == entries_.end() || it->second.borrowed) return nullptr;
  it->second.borrowed = true;
  return it->second.connection.get();
}

void ConnectionTable::giveBack(uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(id);
  if (it != entries_.end()) it->second.borrowed = false;
}

std::unique_ptr<Connection> ConnectionTable::remove(uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(id);
  return it == entries_.end() ? nullptr : takeOut(it);
}

// The new owner of the connection may do anything with its descriptor.
std::unique_ptr<Connection> ConnectionTable::takeOut(Entries::iterator entry) {
  auto connection = std::move(entry->second.connection);
  entries_.erase(entry);
  connection->relay().budget.leave(*connection);
  return connection;
}

void ConnectionTable::discard(uint64_t id) {
  std::unique_ptr<Connection> ended;  // closed outside the lock
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(id);
  if (it == entries_.end()) return;
  if (it->second.borrowed) {
    // The borrower owns the descriptor; shutting it down is safe under the lock, since remove() needs it too.
    ::shutdown(it->second.connection->fd.get(), SHUT_RDWR);
    return;
  }
  ended = takeOut(it);
}

bool ConnectionTable::evict(uint64_t id) {
  std::unique_ptr<Connection> ended;  // closed outside the lock
  {
    const std::lock_guard lock(mutex_);
    const auto it = entries_.find(id);
    if (it == entries_.end()) return false;
    if (it->second.borrowed) {
      it->second.connection->evict();
      return true;
    }
    ended = takeOut(it);
  }
  ended->resetOnClose();
  if (ended->notify) ended->relay().emitEnd(*ended, "another connection needed its room");
  return true;
}

void ConnectionTable::discardAll(const RelayCore* relay) {
  std::vector<std::unique_ptr<Connection>> ended;
  const std::lock_guard lock(mutex_);
  for (auto it = entries_.begin(); it != entries_.end();) {
    Connection& connection = *it->second.connection;
    if (&connection.relay() != relay) {
      ++it;
    } else if (it->second.borrowed) {
      ::shutdown(connection.fd.get(), SHUT_RDWR);
      ++it;
    } else {
      ended.push_back(takeOut(it++));
    }
  }
}

void ConnectionTable::setRemote(uint64_t id, const Address& remote) {
  HandshakeBudget* budget = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const auto it = entries_.find(id);
    if (it == entries_.end()) return;
    budget = &it->second.connection->relay().budget;
  }
  // Ends one of the same source, if that has its share: before this one counts there, and without our lock.
  budget->makeRoomOf(remote);
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(id);
  if (it == entries_.end()) return;
  it->second.connection->remote = remote;
  budget->move(*it->second.connection);
}

std::string ConnectionTable::remoteText(uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(id);
  return it == entries_.end() ? "" : addressText(it->second.connection->remote);
}

}  // namespace derplane
