// What all threads of one relay share: its configuration, a slot per shard (mail, wake-up), the rings' memory, limits,
// and the events that shards send to the control plane. Reference-counted: every shard, connection and the JavaScript
// object hold it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../core/client_listing.h"
#include "../core/router.h"
#include "accept_limit.h"
#include "connection.h"
#include "fd.h"
#include "handshake_budget.h"

namespace derplane {

struct RelayConfig {
  RouterConfig router;  // `shard` is filled in by each shard
  Key public_key;
  uint64_t write_timeout_ms = 2000;
  uint64_t mesh_write_timeout_ms = 30'000;
  uint64_t rtt_interval_ms = 10'000;  // 0: round-trip times are not measured
  HandshakeBudget::Limits handshakes;
  uint64_t first_byte_timeout_ms = 3000;  // a connection that sent nothing until then ends
  std::vector<int64_t*> counters;         // one array per shard
  std::vector<RingMemory> rings;          // from * shards + to; null on the diagonal
};

// A request of the control plane to a shard.
struct Mail {
  enum class Kind {
    kAdopt,
    kAdoptLink,
    kEndLink,
    kClosePeer,
    kSetForwarder,
    kCheck,
    kRateLimit,
    kDrain,
    kTraffic,
    kClients
  };
  Kind kind;
  Router::Adoption adoption = {};                 // kAdopt, kAdoptLink; kEndLink: its id
  std::unique_ptr<Connection> connection = {};    // kAdopt, kAdoptLink
  Key key = {};                                   // kClosePeer, kSetForwarder
  std::vector<uint8_t> bytes = {};                // kAdopt, kAdoptLink: first output
  bool on = false;                                // kSetForwarder; kCheck: look, do not only answer
  uint32_t ticket = 0;                            // kCheck, kTraffic, kClients
  std::shared_ptr<const ClientQuery> query = {};  // kClients
  uint64_t rate = 0;                              // kRateLimit: bytes per second; kDrain: milliseconds that it takes
  uint64_t burst = 0;                             // kRateLimit: bytes
  uint32_t reconnect_ms = 0;                      // kDrain: what Restarting tells the clients
  uint32_t try_ms = 0;                            // kDrain
};

// What a shard tells the control plane.
struct Event {
  enum class Kind {
    kClosed,
    kForward,
    kCheck,
    kFailed,
    kHttp,
    kLink,
    kTraffic,
    kWanted,
    kConnected,
    kClients,
    kLabelsFull
  };
  Kind kind;
  uint64_t id = 0;                        // kClosed, kFailed, kHttp, kLink
  Key key = {};                           // kClosed; kForward: source
  Key destination = {};                   // kForward
  Address address = {};                   // kClosed, kFailed, kHttp
  CloseReason reason = CloseReason::eof;  // kClosed
  bool notify = false;                    // kClosed, kFailed: somebody waits for the connection's end
  uint32_t listener = 0;                  // kHttp, kWanted: which of the control plane's listeners accepted it
  uint32_t failure = 0;                   // kFailed: index into the control plane's list of failures
  std::string text = {};  // kFailed; kHttp: what is wrong with the request, or empty; kWanted: a certificate's name
  // kForward; kTraffic: records, see TrafficRecord in shard_metrics.cc; kClients: ClientRecords
  std::vector<uint8_t> packet = {};
  uint32_t ticket = 0;                       // kCheck, kTraffic, kClients
  uint32_t shard = 0;                        // kCheck, kTraffic, kClients
  bool last = false;                         // kTraffic: the shard's answer is complete
  std::vector<std::string> violations = {};  // kCheck
  bool mesh = false;                         // kConnected: the client is a mesh peer
  bool prober = false;                       // kConnected
  bool not_ideal = false;                    // kConnected
  uint64_t peers = 0;                        // kLink: keys that the link brought; kClosed: those that go with it
  uint64_t connections = 0;                  // kClients: see ClientListing
  uint64_t keys = 0;                         // kClients
  uint64_t behind = 0;                       // kClients
};

// How the handshake of a connection begins; the numbers are those of src/handshake/messages.ts.
enum class HandshakeStart : uint32_t {
  kRequest,  // the HTTP request comes first
  kAnswer,   // the request was read elsewhere: send 101, then ServerKey
  kDerp,     // begin with ServerKey
  kEnd,      // no connection: the thread has nothing to wait for any more
};

struct HandshakeRequest {
  uint64_t id;
  HandshakeStart start;
};

// Connections on their way to one handshake thread.
class HandshakeInbox {
 public:
  HandshakeInbox();

  int eventFd() const { return event_fd_.get(); }
  // Any thread.
  void push(HandshakeRequest request);
  size_t size();
  // The handshake thread only.
  std::vector<HandshakeRequest> take();

 private:
  Fd event_fd_;
  std::mutex mutex_;
  std::vector<HandshakeRequest> requests_;
};

// The meeting place of a shard and those who want something of it.
class ShardSlot {
 public:
  ShardSlot();

  int eventFd() const { return event_fd_.get(); }

  // Any thread. False when the shard has ended: the mail was not taken.
  bool post(Mail mail);
  // The shard `from` published records for this one; true when a sleeping shard was woken.
  bool notifyRing(uint32_t from) { return raise(ring_bits_, uint64_t{1} << from); }
  // The consumer `from` made room in the ring that leads from this shard to it.
  void notifyRoom(uint32_t from) { raise(room_bits_, uint64_t{1} << from); }
  // Makes the shard's next turn come, from any thread.
  void wake();

  // The rest: the shard's thread only.
  uint64_t takeRingBits() { return take(ring_bits_); }
  uint64_t takeRoomBits() { return take(room_bits_); }
  // Those that takeRoomBits() would take.
  uint64_t roomBits() const { return room_bits_.load(std::memory_order_relaxed); }
  std::vector<Mail> takeMail();
  // False when something came meanwhile: the shard must not sleep.
  bool trySleep();
  void awake() { sleeping_.store(0, std::memory_order_relaxed); }
  // No mail is taken from now on; returns what was still waiting.
  std::vector<Mail> retire();
  bool retired() const { return retired_; }

 private:
  bool raise(Atomic<uint64_t>& bits, uint64_t bit);
  static uint64_t take(Atomic<uint64_t>& bits) {
    return bits.load(std::memory_order_relaxed) == 0 ? 0 : bits.exchange(0, std::memory_order_acquire);
  }

  Fd event_fd_;
  Atomic<uint64_t> ring_bits_{0};
  Atomic<uint64_t> room_bits_{0};
  Atomic<uint32_t> mail_waiting_{0};
  alignas(64) Atomic<uint32_t> sleeping_{1};
  Mutex mutex_;
  std::vector<Mail> mail_;
  bool retired_ = false;
};

class RelayCore : public std::enable_shared_from_this<RelayCore> {
 public:
  static std::shared_ptr<RelayCore> create(RelayConfig config);
  // The relay of that number, for worker threads; null when it is gone.
  static std::shared_ptr<RelayCore> find(uint32_t id);
  ~RelayCore();

  const uint32_t id;
  const RelayConfig config;
  std::vector<std::unique_ptr<ShardSlot>> slots;
  HandshakeBudget budget;
  AcceptLimit accept_limit;                // the control plane's thread
  std::atomic<uint64_t> accepts{0};        // upgrades to DERP
  std::atomic<uint64_t> accepts_tls12{0};  // those of them over TLS
  std::atomic<uint64_t> accepts_tls13{0};
  std::atomic<int64_t> greeted_tls12{0};  // upgrades over TLS that are no clients of a shard yet
  std::atomic<int64_t> greeted_tls13{0};
  std::atomic<uint64_t> tls_accepted{0};  // connections of listeners with TLS, before its handshake
  std::atomic<uint64_t> tls_rejected{0};  // those of them that were refused
  // Failed handshakes by the control plane's numbers for the reasons.
  static constexpr uint32_t kMaxFailures = 16;
  std::atomic<uint64_t> failures[kMaxFailures] = {};
  std::atomic<bool> log_clients{false};
  std::atomic<bool> client_events{false};  // somebody listens for clients that come and go
  std::atomic<uint64_t> lost_events{0};    // events of clients that found no room
  std::atomic<bool> closed{false};

  uint32_t shardOf(const Key& key) const {
    return shardOfHash(hashKey(config.router.seed, key.bytes), config.router.shards);
  }

  // Handshakes: connections go to the threads in turn, and wait while there is none.
  void startHandshake(HandshakeRequest request);
  // Whether a handshake thread takes connections.
  bool hasHandshakeThread();
  void addInbox(std::shared_ptr<HandshakeInbox> inbox);
  void removeInbox(const std::shared_ptr<HandshakeInbox>& inbox);
  // Connections that no handshake thread has taken up yet.
  size_t waitingHandshakes();
  // Tells every handshake thread to end, those that are only starting too.
  void endHandshakes();

  // 64 hexadecimal characters, lower case; empty: none.
  void setMeshKey(std::string key);
  // Compares in constant time; an all-zero key proves nothing.
  bool provesMeshKey(const std::string& offered);

  // The number of a label, from 1 on: kOtherLabel when there are too many, which an event tells once. Empty: kNoLabel.
  uint8_t labelNumber(const std::string& label);
  // Labels in the order of their numbers.
  std::vector<std::string> labels();
  // Clients counted as kOtherLabel as their label found no number.
  std::atomic<uint64_t> labels_refused{0};

  // Events: `notify` is called (any thread, under the lock) when the first event of a batch came.
  void setEventSink(std::function<void()> notify);
  void emit(Event event);
  // Says that a connection ended whose handshake the control plane does not hear of otherwise.
  void emitEnd(const Connection& connection, std::string text);
  // The same within a byte budget; false when it is used up.
  bool emitPacket(Event event);
  std::vector<Event> takeEvents();

 private:
  RelayCore(uint32_t id, RelayConfig config);

  // Log-only events and forwarded packets beyond these are dropped: a control plane that is behind loses them.
  static constexpr size_t kMaxLogEvents = 4096;
  static constexpr size_t kMaxPacketBytes = 16 << 20;

  std::mutex handshakes_mutex_;
  std::vector<std::shared_ptr<HandshakeInbox>> inboxes_;
  std::vector<HandshakeRequest> unassigned_;  // at most the budget's handshakes, and the relay's own
  size_t next_inbox_ = 0;
  bool handshakes_ended_ = false;

  std::mutex labels_mutex_;
  std::vector<std::string> labels_;  // at most kMaxLabels - 1

  std::mutex mesh_key_mutex_;
  std::string mesh_key_;

  std::mutex events_mutex_;
  std::function<void()> notify_;
  std::vector<Event> events_;
  size_t log_events_ = 0;
  size_t packet_bytes_ = 0;
};

}  // namespace derplane
