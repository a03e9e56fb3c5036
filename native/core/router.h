// What a relay does with frames: one Router per shard, on the shard's thread. It does no I/O and reads no clock: the
// shard feeds it bytes, rings and time, then writes what the touched clients' queues hold.
//
// A turn: setNow, any number of consume / takeRing / adopt / ..., then for each client of takeTouched(): write, then
// publish(), then endTurn(), which ends the life of everything that the turn's pieces point to.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "arena.h"
#include "client.h"
#include "counters.h"
#include "departures.h"
#include "duplicates.h"
#include "linked_list.h"
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
  Key public_key = {};  // the relay's own
};

// What the router tells the rest of the process. None of it is on the path of a packet between two clients of this
// process.
class RouterEvents {
 public:
  // A packet for a key that only JavaScript forwards; false when there was no room for it.
  virtual bool forwardToControl(const Key& source, const Key& destination, const uint8_t* packet, uint32_t size) = 0;
  // A mesh link has been up for a second: how many keys it brought.
  virtual void linkUp(const Client& /*link*/, size_t /*keys*/) {}

 protected:
  ~RouterEvents() = default;
};

enum class ParseStatus : uint8_t {
  kPartial,    // all whole frames are consumed
  kBlocked,    // the next frame waits for a ring; Client::blocked_on is set
  kThrottled,  // the next frame waits for the client's receive limit; Client::throttled_until_ms is set
  kPaused,     // the next frame waits until takeResumed() names the client; Client::paused is set
  kClosed,     // the client is closing
};

struct ParseResult {
  uint32_t consumed;
  ParseStatus status;
};

class Router {
 public:
  // Connections that one key may have; with one more the oldest is closed. No node has more than a few, and leaving a
  // set is O(its size).
  static constexpr uint32_t kMaxConnectionsPerKey = 256;
  // Keys that a mesh link may bring; more are passed over.
  static constexpr size_t kMaxLinkKeys = 1 << 20;
  // Notices and departures that wait. With more, links and frames of mesh peers that make more of them wait, too, until
  // half of them are gone.
  static constexpr uint32_t kCrowd = 4096;

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
    uint64_t connected_ns = 0;  // Unix time
    uint64_t number = 0;        // how many upgrades to DERP the relay had seen with this one
    int64_t version = ClientNote::kUsualVersion;
    uint8_t label = kNoLabel;
    uint64_t receive_rate = 0;  // bytes per second that the client may send at most; 0: no separate limit
    std::string app_name = {};  // what is longer than ClientNote::kMaxAppName is cut off
  };
  // Enters a client in the tables; `first_output` (whole frames) is the first thing it will read. Null when memory ran
  // out.
  Client* adopt(const Adoption& adoption, const uint8_t* first_output, uint32_t size);
  // Takes the client out of the tables at once and puts it on the closing list; the shard destroys it at the turn's
  // end.
  void close(Client& client, CloseReason reason);
  // Enters a mesh link to the relay of `adoption.key`, of which this shard is the owner.
  Client* adoptLink(const Adoption& adoption, const uint8_t* first_output, uint32_t size);
  // Closes all connections of a key.
  void closePeer(const Key& key, CloseReason reason);
  void closeAll(CloseReason reason);
  Client* takeClosing();
  // Ends a client that takeClosing() returned.
  void destroy(Client* client);

  // --- bytes -----------------------------------------------------------------------------------------------------
  // Handles all whole frames in `data`, rewriting packets in place: the bytes must stay until endTurn(). So must `room`
  // bytes in front of them, which are free for use.
  ParseResult consume(Client& client, uint8_t* data, uint32_t size, uint32_t room = 0);
  // How many bytes to leave free in front of what this client sends next: some when it sent to another relay's key
  // last.
  uint32_t frontRoom(const Client& client) const;
  // Bytes that the frame beginning at `data` needs in all, as far as `size` bytes tell.
  static uint32_t frameBytesNeeded(const uint8_t* data, uint32_t size);
  // While set, packets that find a ring full are dropped as queue_tail instead of blocking their connection.
  void setDropWhenFull(bool on) { drop_when_full_ = on; }
  // After the wake-up that the ring to `shard` has room: sends the notices that wait for it, then returns the client
  // that has waited longest, or null. To be called until it returns null, or the client that it returned waits again.
  Client* takeBlocked(uint32_t shard);
  // Whether the client may be read now. A link may not while lists that it makes longer are long: it is paused.
  bool mayRead(Client& client);
  // A client whose pause is over, or null.
  Client* takeResumed();
  // Between takeBlocked and the next one: its client may use the ring's room before those who still wait, and is first
  // in line again if that does not suffice. kNotBlocked ends it.
  void setResuming(uint32_t shard) { resuming_ = shard; }

  // --- other shards and the control plane ------------------------------------------------------------------------
  // Handles up to `max` records of a ring; true when it may hold more.
  bool takeRing(uint32_t from, RingConsumer& ring, uint32_t max);
  void setJsForwarder(const Key& key, bool present);
  void addForwarder(const Key& key, const Forwarder& forwarder);
  // Counts a removal of what a known key does not have.
  void removeForwarder(const Key& key, const Forwarder& forwarder);
  // Bytes per second that a client may send, mesh peers excepted; 0 = no limit. Every client gets a new full bucket.
  void setRateLimit(uint64_t bytes_per_second, uint64_t burst);
  // Queues a Restarting frame for every client in [from, from + count) of the slots; true when there are more.
  bool announceRestart(uint32_t from, uint32_t count, uint32_t reconnect_ms, uint32_t try_ms);
  // Closes the clients in the first `share` (0 to 1) of the slots.
  void closeShare(double share, CloseReason reason);

  // --- output ----------------------------------------------------------------------------------------------------
  Client* takeTouched();
  // Counts the presence changes that a watcher heard of, unless there are more to come at once.
  void observePresence(Client& watcher);
  void touch(Client& client);
  // A KeepAlive for every client whose timer is due.
  void tick();
  uint64_t tickMs() const { return timers_.tickMs(); }
  // Shows the rings' records to their consumers; returns the mask of shards that have something new.
  uint64_t publish();
  // Rings that have room for someone who waits, and whose consumer has finished the wake-up for that. Where no such
  // wake-up is on its way (look after this call, not before), it was lost.
  uint64_t ringsWithRoomMade() const;
  bool someoneWaitsForRoom() const { return rings_waited_for_ != 0; }
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

  uint32_t clientCount() const { return client_count_ + link_count_; }
  // All clients and links: slots 0 to slotCount() - 1, null where none is.
  uint32_t slotCount() const { return static_cast<uint32_t>(slots_.size()); }
  const Client* clientInSlot(uint32_t slot) const { return slots_[slot]; }
  // The client of a slot if it is still that one, or null.
  Client* clientAt(uint32_t slot, uint32_t generation) const;
  // A key of this shard, or null.
  const Peer* peerOf(const Key& key) const { return peers_.find(hashOf(key), key.bytes); }
  uint64_t hashOf(const Key& key) const { return hashKey(config_.seed, key.bytes); }
  // Notices and departures that wait for their turn or for a ring.
  size_t waitingNotices() const;
  // Every broken invariant of this shard's tables, in words. `lost`: rings for which a wake-up was lost.
  std::vector<std::string> check(uint64_t lost = 0) const;

 private:
  // Control frames of one turn beyond what reads need.
  static constexpr uint32_t kTurnReserve = 1 << 20;
  // A read brings at most 278,528 bytes (a mesh peer over TLS). Its shortest packet frame has 37, so it makes at most
  // 7,527 packet pieces and as many control pieces.
  static constexpr uint32_t kPieceReserve = 16 << 10;
  // For the keys by which 64 packets of one read grow when they are forwarded.
  static constexpr uint32_t kFrontRoom = 64 * kKeySize;
  static constexpr uint32_t kSlotsPerBackgroundStep = 1024;
  static constexpr uint32_t kReceiversPerStep = 1024;
  static constexpr uint32_t kOrphanPlacesPerStep = 1024;
  // Registrations of forwarders that a shard works off before it says so.
  static constexpr uint32_t kRegistrationsPerReport = 256;
  static_assert(kRegistrationsPerReport < kCrowd / 2);
  // A watcher that reads slowly holds its flood back, not the shard's memory.
  static constexpr uint32_t kFloodBacklog = 1 << 20;
  static constexpr uint64_t kLinkTimeoutMs = 120'000;
  static constexpr uint64_t kLinkReportMs = 1000;

  struct Notice {
    RecordKind kind;
    Key key;
    uint64_t hash = 0;
    uint32_t slot = 0;
    uint32_t generation = 0;
    Address address = {};  // kPresent
    uint8_t flags = 0;     // kPresent
  };

  struct ClientRef {
    uint32_t slot;
    uint32_t generation;
  };

  // A client of some shard that hears of every key. It has heard of the slots below `cursor`; once it is `flooded`, all
  // were.
  struct Watch {
    uint32_t shard;
    uint32_t slot;
    uint32_t generation;
    uint32_t cursor = 0;
    bool flooded = false;
  };

  // router.cc
  ParseResult consumeFrames(Client& client, uint8_t* data, uint32_t size);
  bool handleFrame(Client& client, uint8_t* frame, uint32_t size);
  CloseReason checkHeader(const Client& client, FrameType type, uint32_t length, bool& bad);
  bool handlePacket(Client& client, uint8_t* frame, uint32_t size);
  void handlePing(Client& client, const uint8_t* body);
  void handleNotePreferred(Client& client, bool preferred);
  void countReceived(Client& client, const uint8_t* frame, uint32_t size);
  void countForwardedIn(Client& client, uint32_t payload);
  void deliverTo(Client& client, const uint8_t* frame, uint32_t size, uint64_t source_hash);
  // Delivers a RecvPacket frame to the key's client or its JavaScript forwarder; false with the reason why not.
  bool deliver(Peer* peer, const uint8_t* frame, uint32_t size, uint64_t source_hash, bool forwarded, DropReason* why);
  void dropPacket(DropReason reason, const uint8_t* frame, uint32_t size, uint8_t sender_label);
  // A token bucket kept as the time at which it is full again: three answers fit while that is at most 2 s ahead.
  bool mayAnswerNotHere(const Client& client) const { return client.not_here_ms <= now_ms_ + 2000; }
  void answerNotHere(Client& client, const Key& destination);
  void sendControl(Client& client, const uint8_t* frame, uint32_t size);
  // A change of presence to a watcher of this shard.
  void tell(Client& watcher, const uint8_t* frame, uint32_t size);
  Peer* addPeer(const Key& key);
  void releaseIfUnused(Peer& peer);
  void leavePeer(Client& client);
  void closeOldest(Peer& peer);
  void leaveBlocked(Client& client);
  void armKeepAlive(Client& client);
  uint32_t takeSlot(Client* client);

  // router_rings.cc
  // Room for a packet frame in the ring to `shard`. Null: the client is blocked, or with drop_when_full_ the packet is
  // to be dropped.
  RingRecord* reserveInRing(Client& client, uint32_t shard, uint32_t frame_size);
  void commitPacket(const Client& client, uint32_t shard, RingRecord* record, const Key& destination, uint64_t hash,
                    uint64_t source_hash, const uint8_t* frame, uint32_t size, bool forwarded);
  void block(Client& client, uint32_t shard);
  bool waitForRoom(uint32_t shard, uint32_t size);
  bool someoneWaitsFor(uint32_t shard) const {
    return !blocked_[shard].empty() || (shard != config_.shard && !notices_[shard].empty());
  }
  void takePacket(uint32_t from, RingRecord& record);
  void closeElsewhere(const Key& key);
  void keyGone(const Key& key, uint64_t hash);
  void notify(uint32_t shard, const Notice& notice);
  void notifyOthers(const Notice& notice);
  // Whether any found room in its ring; the others are sent when the ring has room.
  bool sendNotices(uint32_t shard);
  bool tellGone();
  // Whether more than `limit` notices or departures wait in one list.
  bool listsOver(size_t limit) const;
  // The same, or as many registrations of this shard's links are under way.
  bool crowded(size_t limit) const;
  void pauseForCrowd(Client& client);
  bool endCrowd();
  void workedOff(uint32_t from);
  bool reportWorkedOff();

  // router_forward.cc
  void handleForwardPacket(Client& client, uint8_t* frame, uint32_t size, bool& blocked);
  // Gives a SendPacket frame to a key's first forwarder; false when the client has to wait for a ring.
  bool forwardPacket(Client& client, Peer& peer, const uint8_t* frame, uint32_t size);
  // The same for a packet that cannot wait; false with the reason why it was not taken.
  bool forwardNow(Peer& peer, const uint8_t* source, const uint8_t* packet, uint32_t size, DropReason* why);
  void commitForward(RingRecord* record, const Forwarder& forwarder, const uint8_t* source, const Key& destination,
                     const uint8_t* packet, uint32_t size);
  uint8_t* takeFront(const uint8_t* packet, uint32_t size);
  bool forwardHere(const Forwarder& forwarder, const uint8_t* source, const Key& destination, const uint8_t* packet,
                   uint32_t size);
  void takeForward(const RingRecord& record);
  ParseResult consumeLink(Client& link, uint8_t* data, uint32_t size);
  void linkPresent(Client& link, const Key& key);
  void linkAbsent(Client& link, const Key& key);
  void registerForwarder(const Forwarder& link, const Key& key, RecordKind kind);
  void orphanKeys(Client& link);
  bool removeOrphans();
  void tickLink(Client& link);

  // router_watch.cc
  // False when the client has to wait: the flood before is not complete, or lists are long.
  bool handleWatchConns(Client& client);
  bool handleClosePeer(Client& client, const Key& key);
  bool mustPause(Client& client);
  void startWatch(uint32_t shard, uint32_t slot, uint32_t generation);
  void stopWatch(uint32_t shard, uint32_t slot, uint32_t generation);
  void unwatch(Client& client);
  // The watcher, which is here, has heard of all keys of a shard.
  void endFlood(uint32_t shard, Client& watcher);
  void announce(const Client& client);
  void announceAbsence(const Peer& peer, uint32_t slot);
  bool flood();
  bool floodOne(Watch& watch);
  void sendPresence(const Watch& watch, const Client& client);
  bool tellOwnWatchers();
  void takePresent(const RingRecord& record);
  void takeAbsent(const RingRecord& record);

  // router_limit.cc
  struct Limit {
    uint64_t bytes_per_second;  // 0: none
    uint64_t burst;
  };
  Limit limitOf(const Client& client) const;
  bool mayReceive(Client& client, uint32_t length);
  void tellSlowed(Client& client, uint64_t bytes_per_second);
  void forgetSlowed(Client& client);
  void tellNoLongerSlowed();

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
  LinkedList<Client, &Client::blocked> blocked_[kMaxShards];  // wait for the ring to each shard
  bool drop_when_full_ = false;
  uint32_t resuming_ = kNotBlocked;
  uint64_t rings_dirty_ = 0;
  uint64_t rings_waited_for_ = 0;  // rings whose flag `waits` is set

  std::vector<Client*> slots_;
  std::vector<uint32_t> generations_;
  std::vector<uint32_t> free_slots_;
  uint32_t client_count_ = 0;
  uint32_t link_count_ = 0;

  Client* touched_ = nullptr;
  Client* closing_ = nullptr;
  Block* retired_ = nullptr;
  uint64_t now_ms_ = 0;
  uint64_t jitter_state_;
  // Of the bytes given to consume(): [front_, front_end_) is free, since every frame before front_end_ was moved away.
  // Null outside of it.
  uint8_t* front_ = nullptr;
  uint8_t* front_end_ = nullptr;
  // Of the ForwardPacket before, whatever its source: a sender's packets mostly come in runs.
  Key forward_source_;
  uint64_t forward_source_hash_ = 0;

  Departures departures_;
  std::deque<Notice>
      notices_[kMaxShards];  // for other shards until their ring has room; own: for watchers of this shard
  std::vector<Watch> watches_;
  struct Orphans {
    Forwarder forwarder;
    KeySet keys;
    size_t next = 0;  // see KeySet::drainFrom
  };
  std::vector<Orphans> orphans_;             // keys of links that ended, whose forwarders are still to be removed
  uint32_t registrations_[kMaxShards] = {};  // sent to each shard for this one's links, and not reported as worked off
  uint32_t worked_off_[kMaxShards] = {};     // of each shard's links, not reported yet
  uint64_t to_report_ = 0;                   // shards of whose links enough are worked off
  std::vector<ClientRef> paused_;            // until lists are short again
  std::vector<ClientRef> resumed_;
  uint64_t rate_bytes_per_second_ = 0;
  uint64_t rate_burst_ = 0;
  uint32_t rate_epoch_ = 1;
  LinkedList<Client, &Client::slowed_links>
      slowed_;  // heard that their limit slows them down, longest not slowed first
};

}  // namespace derplane
