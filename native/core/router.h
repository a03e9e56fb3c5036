// What a relay does with frames: one Router per shard, on the shard's thread. It does no I/O and reads no clock: the
// shard feeds it bytes, rings and time, then writes what the touched clients' queues hold.
//
// A turn: setNow, any number of consume / takeRing / adopt / ..., then for each client of takeTouched(): write, then
// publish(), then endTurn(), which ends the life of everything that the turn's pieces point to.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "arena.h"
#include "client.h"
#include "counters.h"
#include "duplicates.h"
#include "peer_table.h"
#include "ring.h"
#include "send_queue.h"
#include "timer_wheel.h"

namespace derplane {

inline constexpr uint32_t kMaxShards = 63;  // rings are named in 64-bit masks, whose last bit stands for mail

struct RouterConfig {
  HashSeed seed;
  uint32_t shard = 0;
  uint32_t shards = 1;
  uint32_t queue_depth = 32;
  uint64_t max_queue_bytes = 256 << 20;
  uint64_t keepalive_ms = 60'000;
  DuplicatePolicy duplicates = DuplicatePolicy::kLastWriterActive;
};

// What the router tells the rest of the process. None of it is on the path of a packet between two clients of this
// process.
class RouterEvents {
 public:
  // A packet for a key that only JavaScript forwards; false when there was no room for it.
  virtual bool forwardToControl(const Key& source, const Key& destination, const uint8_t* packet, uint32_t size) = 0;

 protected:
  ~RouterEvents() = default;
};

enum class ParseStatus : uint8_t {
  kPartial,  // all whole frames are consumed
  kBlocked,  // the next frame waits for a ring; Client::blocked_on is set
  kClosed,   // the client is closing
};

struct ParseResult {
  uint32_t consumed;
  ParseStatus status;
};

class Router {
 public:
  Router(const RouterConfig& config, Counters counters, RouterEvents& events);
  ~Router();
  Router(const Router&) = delete;
  Router& operator=(const Router&) = delete;

  // The ring to another shard; must be set for all others before the first packet.
  void setRing(uint32_t shard, RingProducer producer) { rings_[shard] = producer; }
  void setNow(uint64_t now_ms) { now_ms_ = queues_.now_ms = now_ms; }
  uint64_t now() const { return now_ms_; }

  // --- clients ---------------------------------------------------------------------------------------------------
  struct Adoption {
    Key key;
    uint64_t id = 0;
    Address address;
    int fd = -1;
    bool mesh = false;
    bool prober = false;
    bool not_ideal = false;
    bool notify = false;
  };
  // Enters a client in the tables; `first_output` (whole frames) is the first thing it will read. Null when memory ran
  // out.
  Client* adopt(const Adoption& adoption, const uint8_t* first_output, uint32_t size);
  // Takes the client out of the tables at once and puts it on the closing list; the shard destroys it at the turn's
  // end.
  void close(Client& client, CloseReason reason);
  // Closes all connections of a key.
  void closePeer(const Key& key, CloseReason reason);
  void closeAll(CloseReason reason);
  Client* takeClosing();
  // Ends a client that takeClosing() returned.
  void destroy(Client* client);

  // --- bytes -----------------------------------------------------------------------------------------------------
  // Handles all whole frames in `data`, rewriting packets in place: the bytes must stay until endTurn().
  ParseResult consume(Client& client, uint8_t* data, uint32_t size);
  // Bytes that the frame beginning at `data` needs in all, as far as `size` bytes tell.
  static uint32_t frameBytesNeeded(const uint8_t* data, uint32_t size);
  // While set, packets that find a ring full are dropped as queue_tail instead of blocking their connection.
  void setDropWhenFull(bool on) { drop_when_full_ = on; }
  // The client that has waited longest for room in the ring to `shard`, or null.
  Client* takeBlocked(uint32_t shard);
  // Between takeBlocked and the next one: its client may use the ring's room before those who still wait, and is first
  // in line again if that does not suffice. kNotBlocked ends it.
  void setResuming(uint32_t shard) { resuming_ = shard; }

  // --- other shards and the control plane ------------------------------------------------------------------------
  // Handles up to `max` records of a ring; true when it may hold more.
  bool takeRing(uint32_t from, RingConsumer& ring, uint32_t max);
  void setJsForwarder(const Key& key, bool present);
  // A packet from the control plane for a client of this shard; `frame` is a whole RecvPacket that stays until
  // endTurn().
  void deliverFromControl(const Key& destination, const uint8_t* frame, uint32_t size);

  // --- output ----------------------------------------------------------------------------------------------------
  Client* takeTouched();
  void touch(Client& client);
  // A KeepAlive for every client whose timer is due.
  void tick();
  uint64_t tickMs() const { return timers_.tickMs(); }
  // Shows the rings' records to their consumers; returns the mask of shards that have something new.
  uint64_t publish();
  // O(clients) work left over from earlier turns, a bounded part of it; true when it did anything, so that there may be
  // more.
  bool background();
  void endTurn();

  bool roomForRead(uint32_t bytes) const {
    return arena_.left() >= bytes + kTurnReserve && queues_.pieces.left() >= kPieceReserve;
  }
  Arena& arena() { return arena_; }
  QueueShared& queues() { return queues_; }
  Counters& counters() { return counters_; }
  // Keeps a block until the turn's end, when pieces no longer point into it.
  void retire(Block* block) {
    block->next = retired_;
    retired_ = block;
  }

  uint32_t clientCount() const { return client_count_; }
  uint64_t hashOf(const Key& key) const { return hashKey(config_.seed, key.bytes); }
  // Every broken invariant of this shard's tables, in words.
  std::vector<std::string> check() const;

 private:
  // Control frames of one turn beyond what reads need.
  static constexpr uint32_t kTurnReserve = 1 << 20;
  // One read makes at most 65,536 / 37 packet pieces and as many control pieces.
  static constexpr uint32_t kPieceReserve = 16 << 10;
  static constexpr uint32_t kSlotsPerBackgroundStep = 1024;
  static constexpr uint32_t kGoneBatch = 64;

  struct ClientList {
    Client* head = nullptr;
    Client* tail = nullptr;
  };

  struct Notice {
    RecordKind kind;
    Key key;
    uint64_t hash;
  };

  // router.cc
  bool handleFrame(Client& client, uint8_t* frame, uint32_t size);
  CloseReason checkHeader(Client& client, FrameType type, uint32_t length, bool& bad) const;
  bool handlePacket(Client& client, uint8_t* frame, uint32_t size);
  void handleForwardPacket(Client& client, uint8_t* frame, uint32_t size, bool& blocked);
  void handlePing(Client& client, const uint8_t* body);
  void handleNotePreferred(Client& client, bool preferred);
  void countReceived(const uint8_t* frame, uint32_t size);
  void deliverTo(Client& client, const uint8_t* frame, uint32_t size, uint64_t source_hash);
  // Delivers a RecvPacket frame to the key's client or its JavaScript forwarder; false with the reason why not.
  bool deliver(Peer* peer, const uint8_t* frame, uint32_t size, uint64_t source_hash, bool forwarded, DropReason* why);
  void dropPacket(DropReason reason, const uint8_t* frame, uint32_t size);
  // A token bucket kept as the time at which it is full again: three answers fit while that is at most 2 s ahead.
  bool mayAnswerNotHere(const Client& client) const { return client.not_here_ms <= now_ms_ + 2000; }
  void answerNotHere(Client& client, const Key& destination);
  void sendControl(Client& client, const uint8_t* frame, uint32_t size);
  Peer* addPeer(const Key& key);
  void releaseIfUnused(Peer& peer);
  void armKeepAlive(Client& client);
  uint32_t takeSlot(Client* client);

  // router_rings.cc
  // Room for a packet frame in the ring to `shard`. Null: the client is blocked, or with drop_when_full_ the packet is
  // to be dropped.
  RingRecord* reserveInRing(Client& client, uint32_t shard, uint32_t frame_size);
  void commitPacket(const Client& client, uint32_t shard, RingRecord* record, const Key& destination, uint64_t hash,
                    uint64_t source_hash, const uint8_t* frame, uint32_t size, bool forwarded);
  void block(Client& client, uint32_t shard);
  void takePacket(uint32_t from, RingRecord& record);
  Client* clientAt(uint32_t slot, uint32_t generation) const;
  void closeElsewhere(const Key& key);
  void keyGone(const Key& key, uint64_t hash);
  // Whether any found room in its ring; the others are sent when the ring has room.
  bool sendNotices();

  RouterConfig config_;
  Counters counters_;
  RouterEvents& events_;
  BlockPool blocks_;
  QueueShared queues_;
  Arena arena_;
  PeerTable peers_;
  Duplicates duplicates_;
  TimerWheel timers_;
  RingProducer rings_[kMaxShards];
  ClientList blocked_[kMaxShards];
  bool drop_when_full_ = false;
  uint32_t resuming_ = kNotBlocked;
  uint64_t rings_dirty_ = 0;

  std::vector<Client*> slots_;
  std::vector<uint32_t> generations_;
  std::vector<uint32_t> free_slots_;
  uint32_t client_count_ = 0;

  Client* touched_ = nullptr;
  Client* closing_ = nullptr;
  Block* retired_ = nullptr;
  uint64_t now_ms_ = 0;
  uint64_t jitter_state_;

  std::vector<Notice> gone_;                 // keys whose receivers here are still to be told
  uint32_t gone_batch_ = 0;                  // how many of them the sweep under way covers
  uint32_t gone_slot_ = 0;                   // where it stands
  std::vector<Notice> notices_[kMaxShards];  // for other shards, until their ring has room
};

}  // namespace derplane
