#include "connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "address.h"
#include "relay_core.h"

namespace derplane {

Connection::Connection(std::shared_ptr<RelayCore> relay, Fd fd_in, Address remote_in)
    : fd(std::move(fd_in)), remote(remote_in), relay_(std::move(relay)) {
  relay_->handshakes.fetch_add(1, std::memory_order_relaxed);
}

Connection::~Connection() {
  relay_->handshakes.fetch_sub(1, std::memory_order_relaxed);
  relay_->handshake_bytes.fetch_sub(reserved_, std::memory_order_relaxed);
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
  const size_t more = size - reserved_;
  const size_t before = relay_->handshake_bytes.fetch_add(more, std::memory_order_relaxed);
  if (before + more > relay_->config.max_handshake_bytes) {
    relay_->handshake_bytes.fetch_sub(more, std::memory_order_relaxed);
    return false;
  }
  reserved_ = size;
  return true;
}

Connection::ReadResult Connection::read(size_t max) {
  // Most handshakes fit; a large ClientInfo comes in several reads.
  static constexpr size_t kChunk = 4096;
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
  entries_[id].connection = std::move(connection);
  return id;
}

std::unique_ptr<Connection> ConnectionTable::take(uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(id);
  if (it == entries_.end() || it->second.borrowed) return nullptr;
  auto connection = std::move(it->second.connection);
  entries_.erase(it);
  return connection;
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
  if (it == entries_.end()) return nullptr;
  auto connection = std::move(it->second.connection);
  entries_.erase(it);
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
  ended = std::move(it->second.connection);
  entries_.erase(it);
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
      ended.push_back(std::move(it->second.connection));
      it = entries_.erase(it);
    }
  }
}

std::string ConnectionTable::remoteText(uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(id);
  return it == entries_.end() ? "" : addressText(it->second.connection->remote);
}

}  // namespace derplane
