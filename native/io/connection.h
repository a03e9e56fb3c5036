// A connection that no shard owns yet, from accept to adopt, and the process-wide table in which threads find it by
// number.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "../core/client.h"
#include "fd.h"
#include "handshake_roster.h"
#include "secure_session.h"

namespace derplane {

class RelayCore;

// Counts against its relay's limits as long as it lives.
class Connection {
 public:
  Connection(std::shared_ptr<RelayCore> relay, Fd fd, Address remote);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  uint64_t id = 0;
  Fd fd;
  Address remote;
  uint32_t listener = 0;                     // which of the control plane's listeners accepted it
  bool notify = false;                       // the control plane wants to hear of its end
  bool exempt = false;                       // the relay made it: never ended to make room
  bool spoke = false;                        // its client had sent something before the relay got it
  bool may_be_proxied = false;               // a trusted proxy may tell the client's address first
  bool not_ideal = false;                    // an `Ideal-Node` header came with it
  std::shared_ptr<SecureServer> tls_server;  // of a connection that begins with a TLS handshake
  std::unique_ptr<SecureSession> tls;        // what bytes() were opened by; null: they came as they are
  std::vector<uint8_t> output;               // what the network has not taken yet
  RosterEntry roster;                        // belongs to the relay's HandshakeBudget
  uint64_t number = 0;                       // upgrades to DERP that the relay had seen with this one; 0: not upgraded

  // Bytes read and not consumed.
  const uint8_t* bytes() const { return buffer_.data() + start_; }
  size_t size() const { return buffer_.size() - start_; }
  void consume(size_t count);

  // kBytes: there may be more; over TLS also when only the handshake got further. kBudget: the relay's budget for
  // handshakes is used up. kTls: TLS failed, see tlsFailure(). kWantCertificate: read() again when the server's version
  // rises.
  // kProxy: a malformed PROXY header.
  enum class ReadResult { kBytes, kNothing, kEnd, kReset, kBudget, kTls, kWantCertificate, kProxy };
  // One recv of at most `max` bytes behind what is buffered. Over TLS it is a record's worth whatever `max` says, and
  // there may be something to send afterwards.
  ReadResult read(size_t max);
  // Makes the session of a connection that begins with a TLS handshake; false when memory is exhausted.
  bool beginTls();
  // Queues plaintext; false when TLS failed.
  bool write(const uint8_t* data, size_t size);
  enum class SendResult { kDone, kMore, kReset };
  // Sends what is queued, as much as the network takes.
  SendResult send();
  // Adds bytes that somebody else read; false when the budget is used up.
  bool append(const uint8_t* data, size_t size);

  // The client asked for DERP and is about to get ServerKey: counted once, and over TLS as active from now on.
  void upgraded();

  RelayCore& relay() { return *relay_; }

  // Whether it is to end since another connection needs its room. Any thread.
  bool evicted() const { return evicted_.load(std::memory_order_relaxed); }
  // Makes its user see that it is evicted: whatever waits for the socket hears of its end. Under the table's lock.
  void evict();
  // Closing then resets: neither side keeps the remains of a connection that did nothing.
  void resetOnClose();

 private:
  bool reserve(size_t size);
  ReadResult readPlain(size_t max);
  ReadResult readProxyHeader();
  ReadResult takeSealed(const uint8_t* data, size_t size);
  ReadResult open();

  std::shared_ptr<RelayCore> relay_;
  std::vector<uint8_t> buffer_;
  size_t start_ = 0;
  std::vector<uint8_t> proxy_bytes_;                  // of a PROXY header that is not whole yet
  std::atomic<int64_t>* greeted_over_tls_ = nullptr;  // the relay's gauge that counts this connection
  std::atomic<size_t> reserved_{0};
  std::atomic<bool> evicted_{false};
  size_t evicted_bytes_ = 0;  // what it held then
};

class ConnectionTable {
 public:
  // The process's table. Never destroyed: threads may still end while the process exits.
  static ConnectionTable& instance();

  uint64_t add(std::unique_ptr<Connection> connection);
  // Takes the connection out; null when it is unknown, or in use by a handshake thread.
  std::unique_ptr<Connection> take(uint64_t id);
  // Marks the connection as used by the calling thread, which alone may touch it until giveBack or remove. Null when
  // unknown or in use.
  Connection* borrow(uint64_t id);
  void giveBack(uint64_t id);
  std::unique_ptr<Connection> remove(uint64_t id);
  // Ends a connection: closes it, or when a handshake thread uses it makes that thread's next read see the end.
  void discard(uint64_t id);
  // The same for a connection whose room is needed; false when it is unknown.
  bool evict(uint64_t id);
  void discardAll(const RelayCore* relay);
  // Sets where a connection comes from, once its proxy has named the client; that source's share counts from now on.
  void setRemote(uint64_t id, const Address& remote);
  // Address of a connection, as text.
  std::string remoteText(uint64_t id);

 private:
  struct Entry {
    std::unique_ptr<Connection> connection;
    bool borrowed = false;
  };

  using Entries = std::unordered_map<uint64_t, Entry>;

  std::unique_ptr<Connection> takeOut(Entries::iterator entry);

  std::mutex mutex_;
  Entries entries_;
  uint64_t last_id_ = 0;
};

}  // namespace derplane
