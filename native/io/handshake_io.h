// Connections in handshake on one thread of one relay: non-blocking reads and writes on the thread's loop. Each
// connection has one deadline, which ends whatever it waits for; JavaScript gets every outcome through a callback.
#pragma once

#include <uv.h>

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "connection.h"
#include "loop_handles.h"
#include "poller.h"
#include "relay_core.h"

namespace derplane {

// How a wait ended. The names are the codes that JavaScript sees.
enum class IoOutcome { kOk, kClosed, kReset, kTimeout, kBudget, kDiscarded, kTls, kEvicted, kProxy };
const char* ioOutcomeName(IoOutcome outcome);

class HandshakeIo final : public LoopUser {
 public:
  // With kTls the bytes are a text that says what went wrong.
  using OnRead = std::function<void(IoOutcome, const uint8_t* bytes, size_t size)>;
  using OnWrite = std::function<void(IoOutcome)>;

  // Runs its argument where JavaScript may hear of outcomes, and lets JavaScript react only after it returned: a
  // reaction may end any job.
  using Enter = std::function<void(const std::function<void()>&)>;

  // Gets connections that begin their handshake on this thread; those with a request once they sent the first of it.
  using OnRequests = std::function<void(const std::vector<HandshakeRequest>&)>;

  static std::shared_ptr<HandshakeIo> start(uv_loop_t* loop, std::shared_ptr<RelayCore> core, Enter enter,
                                            OnRequests on_requests, std::string& error);

  RelayCore& core() { return *core_; }

  // False when the connection is unknown or in use.
  bool open(uint64_t id, uint64_t timeout_ms);
  // Begins the next step of the handshake, with its own deadline.
  void setTimeout(uint64_t id, uint64_t timeout_ms);
  // `done` is called when at least `min` bytes are buffered, at once if they are; at most `max` are read ahead.
  void read(uint64_t id, size_t min, size_t max, OnRead done);
  void consume(uint64_t id, size_t count);
  void write(uint64_t id, const uint8_t* bytes, size_t size, OnWrite done);
  // Waits until something ends the connection's handshake: its deadline, its client, or want of room. Never kOk.
  void watchEnd(uint64_t id, OnWrite done);
  // The client's address, as a trusted proxy named it.
  void setRemote(uint64_t id, const Address& remote);
  // Address of the client, as text; empty when it is unknown.
  std::string remote(uint64_t id);
  // The connection asked for DERP; to be called once, before ServerKey is written.
  void upgraded(uint64_t id);

  // The ends of a handshake; each takes the connection off this thread.
  // Hands the client to its shard; false when that has ended, or the connection is unknown.
  bool adopt(uint64_t id, Router::Adoption adoption, std::vector<uint8_t> first_output);
  // Gives a connection that is no DERP upgrade to the control plane; `malformed` says what is wrong with the request,
  // if anything, which is counted as `failure`.
  void serveHttp(uint64_t id, uint32_t failure, std::string malformed);
  // Closes the connection and counts why. `report`: the control plane hears of it in any case.
  void fail(uint64_t id, uint32_t failure, bool report, std::string text);

 private:
  static constexpr uint64_t kTickMs = 50;

  struct Job {
    Connection* connection = nullptr;
    uint64_t id = 0;
    uint64_t deadline_ms = 0;
    size_t min = 0;
    size_t max = 0;
    OnRead on_read = nullptr;
    OnWrite on_write = nullptr;
    OnWrite on_end = nullptr;
    uint64_t certificates_seen = 0;  // version of the TLS server's certificates of which none would do
    bool wants_certificate = false;
    bool expired = false;      // its deadline passed; JavaScript has yet to end it
    bool mute = false;         // it sent nothing yet, and JavaScript does not know of it
    bool established = false;  // its TLS handshake is done
  };

  explicit HandshakeIo(std::shared_ptr<RelayCore> core) : core_(std::move(core)) {}
  bool openHandles(uv_loop_t* loop, std::string& error);
  void onClose() override;
  Job* find(uint64_t id);
  Job* watch(uint64_t id);
  void setDeadline(Job& job, uint64_t timeout_ms);
  void awaitFirstByte(uint64_t id);
  void endMute(Job& job, const char* why);
  void pollOnce();
  void onEvent(Job& job, const Poller::Event& event);
  void tick();
  void retryCertificates();
  void tryRead(Job& job);
  bool tryWrite(Job& job);
  void awaitCertificate(Job& job);
  void noteTls(Job& job);
  static void finishRead(Job& job, IoOutcome outcome);
  static void finishWrite(Job& job, IoOutcome outcome);
  static void finishEnd(Job& job, IoOutcome outcome);
  static void finish(Job& job, IoOutcome outcome);
  std::unique_ptr<Connection> detach(uint64_t id);
  void drop(const std::unique_ptr<Connection>& connection);
  void count(uint32_t failure);
  void stopWatching(Job& job);

  std::shared_ptr<RelayCore> core_;
  std::shared_ptr<HandshakeInbox> inbox_ = std::make_shared<HandshakeInbox>();
  Enter enter_;
  OnRequests on_requests_;
  Poller poller_;
  std::unordered_map<uint64_t, std::unique_ptr<Job>> jobs_;
  // Jobs by their deadline, except those that expired; a tick looks at those that are due only.
  std::set<std::pair<uint64_t, uint64_t>> deadlines_;
  std::unordered_set<uint64_t> want_certificate_;  // those that may
  std::vector<HandshakeRequest> arrived_;          // for on_requests_
  uv_loop_t* loop_ = nullptr;
  uv_poll_t poll_ = {};
  uv_timer_t timer_ = {};
};

}  // namespace derplane
