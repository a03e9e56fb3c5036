// One shard: a router, the sockets of its clients, and the turn that joins them, on its worker thread's libuv loop.
#pragma once

#include <uv.h>

#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "../core/router.h"
#include "loop_handles.h"
#include "poller.h"
#include "relay_core.h"
#include "tls_channel.h"

namespace derplane {

class Shard final : public LoopUser, private RouterEvents {
 public:
  // Null with `error` set when the loop refuses a handle or the shard exists already.
  static std::shared_ptr<Shard> start(uv_loop_t* loop, std::shared_ptr<RelayCore> core, uint32_t index,
                                      std::string& error);
  ~Shard() override;

 private:
  // A read takes at most this much of a connection per turn, so that a fast sender cannot starve the others.
  static constexpr uint32_t kReadSize = 64 << 10;
  // A mesh peer's connection carries the packets of many clients: with a client's share their batches would be small,
  // and writes many.
  static constexpr uint32_t kMeshReadSize = 256 << 10;
  static constexpr uint32_t kRingRecordsPerTurn = 1024;
  // Turns in one callback, before libuv may look at its other handles.
  static constexpr int kTurnsPerCallback = 64;
  static constexpr uint32_t kMaxIov = 256;
  // Clients with a backlog are looked at this often for their write deadline.
  static constexpr uint64_t kStallTickMs = 100;
  // Round-trip times measured in one turn: a system call each.
  static constexpr uint32_t kRttsPerTurn = 32;
  // Clients that one turn reports of for /debug/traffic: a system call each, and one event to the control plane.
  static constexpr uint32_t kTrafficSlotsPerTurn = 64;
  // Clients that one turn looks at for a listing; each costs some cache misses.
  static constexpr uint32_t kListedSlotsPerTurn = 512;
  // Bytes kept of reads that wait for a ring; beyond, their packets are dropped.
  static constexpr int64_t kMaxHeldForRings = 64 << 20;
  // Clients over their receive limit, and a drain under way, are looked at this often.
  static constexpr uint64_t kThrottleTickMs = 10;
  // A ForwardPacket that a link cannot write for this long ends the link.
  static constexpr uint64_t kLinkWriteTimeoutMs = 5000;
  static constexpr uint32_t kRestartsPerStep = 1024;
  // Requests of the control plane that one turn handles: an embedder may make a million at once.
  static constexpr size_t kMailPerTurn = 256;

  Shard(std::shared_ptr<RelayCore> core, uint32_t index);

  bool open(uv_loop_t* loop, std::string& error);
  void onClose() override;
  bool forwardToControl(const Key& source, const Key& destination, const uint8_t* packet, uint32_t size) override;
  void linkUp(const Client& link, size_t keys) override;

  // Turns.
  void run();
  bool turn();
  void onPollEvent(const Poller::Event& event);
  bool takeRings();
  bool resumeBlocked(uint64_t bits);
  uint64_t lostRoomWakes() const;
  void resumeForgotten();
  bool resumePaused();
  bool takeMail();
  void handleMail(Mail& mail);
  void adopt(Mail& mail);
  void refuse(Mail& mail);
  void ensureRoom(uint32_t bytes);
  void flushAndRelease();
  void finishTurn();
  void answerChecks();
  void destroyClosing();
  void emitConnected(const Router::Adoption& adoption);
  void emitClosed(const Client& client);
  void onTimer();
  void resumeThrottled();
  void drain();
  void armTimer();

  // Reading.
  static uint32_t readSize(const Client& client) { return client.mesh ? kMeshReadSize : kReadSize; }
  // What a read brings: over TLS also the rest of a record that was begun before.
  static uint32_t readRoom(const Client& client) {
    return readSize(client) + (client.tls == nullptr ? 0 : static_cast<uint32_t>(SecureSession::kMaxRecord));
  }
  void read(Client& client);
  ssize_t receive(Client& client, iovec* iov, int count, bool& full);
  ssize_t readIntoArena(Client& client, bool& full);
  ssize_t readBehindCarry(Client& client, bool& full);
  void consume(Client& client, uint8_t* data, uint32_t size, uint32_t room = 0);
  void endIfHungUp(Client& client);
  void consumeCarry(Client& client);
  void hold(Client& client, const uint8_t* data, uint32_t size);
  bool growCarry(Client& client, uint32_t capacity);
  Block* detachCarry(Client& client);
  void makeHungry(Client& client);

  // Writing.
  void flush(Client& client);
  void countFrames(Client& client, uint32_t frames);
  ssize_t writePlain(Client& client);
  void keepRest(Client& client, bool renew_deadline);
  void unstall(Client& client);
  void closeStalled();

  // TLS (shard_tls.cc).
  static bool hasSealed(const Client& client) { return client.tls != nullptr && !client.tls->unsent.empty(); }
  void startTls(Client& client, Connection& connection);
  ssize_t receiveSealed(Client& client, iovec* iov, int count, bool& full);
  ssize_t writeSealed(Client& client);
  bool sendUnsent(Client& client);
  void keepUnsent(Client& client, size_t sent);
  void countUnsent(Client& client);
  void endTls(Client& client);

  // Measuring (shard_metrics.cc).
  void startMeasuring(Client& client);
  void stopMeasuring(Client& client);
  void queueRtt(Client& client);
  bool measureRtts();
  bool reportTraffic();
  bool listClients();
  void publishAverages();

  std::shared_ptr<RelayCore> core_;
  uint32_t index_;
  ShardSlot& slot_;
  Router router_;
  Poller poller_;
  RingConsumer rings_in_[kMaxShards];
  std::vector<Mail> mail_;  // taken; what lies below next_mail_ is handled
  size_t next_mail_ = 0;
  uint64_t rings_left_ = 0;                      // rings that may hold more than the last turn took
  std::unordered_map<uint64_t, Client*> links_;  // by id, so that the control plane can end one
  std::vector<Client*> hungry_;                  // to be read again in the next turn
  std::vector<Client*> hungry_now_;              // this turn's
  Client* stalled_ = nullptr;
  std::vector<Client*> throttled_;  // wait for their receive limit
  struct Drain {
    uint64_t start_ms = 0;  // 0: not draining
    uint64_t duration_ms = 0;
    uint32_t reconnect_ms = 0;
    uint32_t try_ms = 0;
    uint32_t announced = 0;  // slots that have heard of it
    bool all_announced = false;
  } drain_;
  PageMemory<uint8_t> received_{kMeshReadSize};  // TLS records as they came
  std::vector<uint8_t> sealed_;                  // TLS records as they go
  uint64_t rings_read_ = 0;                      // rings with records that this turn's pieces point to
  std::vector<uint32_t> checks_;
  Client* rtt_first_ = nullptr;
  Client* rtt_last_ = nullptr;
  std::vector<uint32_t> traffic_;  // tickets to be answered, the first under way
  uint32_t traffic_slot_ = 0;      // where it stands
  struct Listing {
    uint32_t ticket;
    ClientListing clients;
  };
  std::deque<Listing> listings_;  // to be answered, the first under way
  double shown_average_ = 0;

  uv_poll_t poll_ = {};
  uv_timer_t timer_ = {};
  uint64_t timer_interval_ = 0;  // 0: not running
};

}  // namespace derplane
