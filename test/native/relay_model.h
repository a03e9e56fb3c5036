// A relay without sockets: routers joined by real rings and wake-ups. It does what a shard does (native/io/shard.cc)
// with kernels that take as many bytes as the test says. One thread can run all shards, or one thread each: what names
// a shard or a session is then called on that shard's thread only.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "frames.h"
#include "native/core/router.h"
#include "native/io/relay_core.h"

namespace model {

using derplane::Client;
using derplane::Key;
using frames::Bytes;

// The far end of a client: what it wrote and nobody read yet, what it got.
struct Session {
  Key key;
  uint32_t shard = 0;
  Client* client = nullptr;  // null: closed
  derplane::CloseReason reason = derplane::CloseReason::eof;
  Bytes unread;
  uint32_t read_limit = 64 << 10;     // bytes that a turn reads
  uint64_t kernel_room = UINT64_MAX;  // bytes that the kernel still takes
  frames::Reader inbox;

  bool closed() const { return client == nullptr; }
  std::vector<Bytes> received() { return inbox.all(); }
};

struct Forwarded {
  Key source, destination;
  Bytes packet;
};

struct Options {
  uint32_t shards = 1;
  uint32_t queue_depth = 32;
  uint64_t max_queue_bytes = 256 << 20;
  uint64_t keepalive_ms = 60'000;
  uint64_t ring_bytes = derplane::kMinRingBytes;  // a power of two; smaller ones than a shard's are for small packets
  derplane::DuplicatePolicy duplicates = derplane::DuplicatePolicy::kLastWriterActive;
};

class Relay {
 public:
  explicit Relay(const Options& options = {});
  ~Relay();

  // First bytes that every client reads.
  static const Bytes& serverInfo();

  Session& connect(const Key& key, bool mesh = false, bool not_ideal = false);
  // The connection ends; what it wrote and nobody read is lost.
  void disconnect(Session& session, derplane::CloseReason reason = derplane::CloseReason::eof);
  void send(Session& session, const Bytes& bytes) {
    session.unread.insert(session.unread.end(), bytes.begin(), bytes.end());
  }

  // One turn of a shard; returns whether it had anything to do.
  bool turn(uint32_t shard);
  // Whether another shard has woken this one since its last turn.
  bool woken(uint32_t shard);
  derplane::ShardSlot& slot(uint32_t shard) { return shards_[shard]->slot; }
  // Sessions of the shard that ended are no longer there.
  void forgetClosed(uint32_t shard);
  // The shard's timer.
  void tick(uint32_t shard);
  // Turns of all shards until nothing is left to do.
  void settle();

  uint32_t shardOf(const Key& key) const;
  // The n-th key of those that `shard` owns.
  Key keyOn(uint32_t shard, uint32_t n) const;
  derplane::Router& router(uint32_t shard) {
    shards_[shard]->poked = true;
    return *shards_[shard]->router;
  }
  int64_t get(derplane::Counter c) const;
  int64_t dropped(derplane::DropReason reason, bool disco) const;
  int64_t dropped() const;
  std::vector<Session*> sessions();
  // Of a failed check() after any turn so far.
  std::string violation() const;

  uint64_t now_ms = 1'000'000;
  std::vector<Forwarded> forwarded;
  bool control_has_room = true;

 private:
  struct Shard final : derplane::RouterEvents {
    Shard(Relay& relay, const derplane::RouterConfig& config);
    bool forwardToControl(const Key& source, const Key& destination, const uint8_t* packet, uint32_t size) override;

    Relay& relay;
    int64_t values[derplane::kCounterCount] = {};
    std::unique_ptr<derplane::Router> router;
    std::vector<derplane::RingConsumer> rings_in;
    std::vector<Bytes> memory;  // of the rings out
    derplane::ShardSlot slot;
    bool poked = false;  // from outside a turn
    uint64_t ring_bits = 0, room_bits = 0, rings_left = 0, rings_read = 0;
    std::string violation;
    std::vector<std::unique_ptr<Session>> sessions;
    std::unordered_map<const Client*, Session*> by_client;
  };

  void read(Shard& shard, Session& session);
  void consumeWithCarry(Shard& shard, Client& client, const uint8_t* more, uint32_t size);
  void resumeBlocked(Shard& shard, uint64_t bits);
  void flush(Shard& shard, Client& client);
  void flushAndRelease(Shard& shard, uint32_t index);
  void destroyClosing(Shard& shard);

  Options options_;
  derplane::HashSeed seed_{0x1122334455667788, 0x99aabbccddeeff00};
  std::vector<std::unique_ptr<Shard>> shards_;
};

}  // namespace model
