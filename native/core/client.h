// A connection after its handshake, and the key that it speaks for. Both are owned by the shard that the key hashes to;
// only that shard's thread touches them. An idle client is one Client and one Peer and no buffer.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "block_pool.h"
#include "close_reason.h"
#include "key.h"
#include "link.h"
#include "linked_list.h"
#include "send_queue.h"
#include "sender_set.h"

namespace derplane {

struct Client;
struct TlsChannel;

// Address of a client, IPv4 as v4-in-v6.
struct Address {
  uint8_t ip[16] = {};
  uint16_t port = 0;  // 0: unknown
};

// A key of this shard: its connections, and whether somebody forwards to it. Zero bytes are one that is not live.
struct Peer {
  Key key;
  uint64_t hash = 0;
  Client* active = nullptr;        // gets the packets; null: none, or all disabled
  Client* primary = nullptr;       // what `active` is unless it is disabled
  Client* connections = nullptr;   // newest first, linked by Client::next_of_key
  Client* last_speaker = nullptr;  // of a set of several; null: none spoke since the set formed
  uint32_t connection_count = 0;
  Forwarders forwarders = {};
  bool announced = false;  // some watcher heard of it
  bool live = false;       // in the table; a Peer given back stays readable but is not live
  uint32_t chunk = 0;      // of PeerMemory
};

inline constexpr uint32_t kNotBlocked = UINT32_MAX;

// What a client said of itself, where it is not what nearly all say: the usual version and no name.
struct ClientNote {
  static constexpr int64_t kUsualVersion = 2;
  static constexpr uint32_t kMaxAppName = 32;

  int64_t version = kUsualVersion;
  std::string app_name;  // at most kMaxAppName bytes
};

struct Client {
  // Fixed at adoption.
  Peer* peer = nullptr;  // null for a link; of a closing client it may be another key's already
  Key key;
  uint64_t id = 0;  // the connection's number in the control plane
  uint64_t connected_ms = 0;
  uint64_t connected_ns = 0;               // the same as Unix time, to be shown
  uint64_t number = 0;                     // how many upgrades to DERP the relay had seen with this one
  std::unique_ptr<const ClientNote> note;  // null: the usual version, no name
  Address address;
  int fd = -1;
  TlsChannel* tls = nullptr;  // belongs to the shard's I/O; null: bytes are sent as they are
  uint32_t slot = 0;
  uint32_t generation = 0;  // of the slot
  bool mesh = false;
  bool prober = false;
  bool not_ideal = false;
  bool notify = false;
  std::unique_ptr<LinkState>
      link;  // a mesh link, of which we are the client: it has no peer and is in no duplicate set
  bool watching = false;
  uint32_t presence_changes = 0;  // in the batch under way, see Router::observePresence
  uint64_t flooding = 0;          // a bit for each shard whose keys it has not all heard of

  // Duplicates.
  Client* next_of_key = nullptr;
  uint64_t spoke = 0;  // order of speech among the shard's clients; 0: not since its key's set formed
  bool disabled = false;

  // Reading.
  Peer* last_destination = nullptr;   // a hint: checked for liveness and key before use
  uint64_t received_packets = 0;      // SendPacket and ForwardPacket frames from it
  uint64_t received_bytes = 0;        // payload of those
  uint64_t receive_rate = 0;          // bytes per second that it may send at most, its own limit; 0: none
  Block* carry = nullptr;             // bytes read and not consumed: part of a frame, or frames that wait for a ring
  uint64_t skip = 0;                  // bytes of an unknown frame still to come
  bool header_counted = false;        // the frame that carry begins with was counted as speech already
  bool slowed = false;                // has heard that its limit slows it down, and not yet that this is over
  uint8_t label = 0;                  // its packets are counted under; 0: none
  uint64_t not_here_ms = 0;           // token bucket of not-here answers: time at which it is full again
  double receive_tokens = 0;          // bytes that it may still send; below 0 it waits
  uint64_t receive_filled_ms = 0;     // when the tokens were counted last
  uint32_t receive_epoch = 0;         // of the limit that the tokens are for
  uint64_t throttled_until_ms = 0;    // 0: not waiting for its receive limit
  uint64_t slowed_ms = 0;             // when it last had to wait for its receive limit
  uint64_t told_slow_ms = 0;          // when it last heard so; 0: never
  Links<Client> slowed_links;         // among those who are `slowed`, in the order of slowed_ms
  Links<Client> blocked;              // among those that wait for the same ring, in the order of coming
  uint32_t blocked_on = kNotBlocked;  // shard whose ring has no room for the first frame in carry
  bool paused = false;                // the next frame waits until Router::takeResumed names the client
  bool preferred = false;
  bool hungry = false;      // may have more to read than the last turn took
  bool got_hangup = false;  // the poller reported the peer's end; read until it shows

  // Writing.
  SendQueue queue;
  SenderSet senders;
  uint64_t sealed_bytes = 0;       // of TLS records that the kernel did not take; they count as the queue's memory
  uint64_t write_deadline_ms = 0;  // meaningful while the queue has a backlog
  Client* next_touched = nullptr;
  Client* stall_next = nullptr;  // among clients with a backlog, which have a write deadline
  Client* stall_prev = nullptr;
  bool in_stall_list = false;
  uint32_t uncounted_frames = 0;  // waiting frames that Histogram::buffered_write_frames leaves out
  bool touched = false;           // has output of this turn, or room for its backlog
  bool stalled = false;           // the kernel refused bytes; its next writable event clears this
  bool closing = false;           // left its key already; destroyed at the turn's end
  CloseReason close_reason = CloseReason::eof;
  Client* next_closing = nullptr;

  // Measuring.
  Client* rtt_next = nullptr;  // among clients whose round-trip time is measured, the next due first
  Client* rtt_prev = nullptr;
  uint64_t rtt_due_ms = 0;  // 0: not measured

  // Coarse timers.
  Client* timer_next = nullptr;
  Client* timer_prev = nullptr;
  uint32_t timer_bucket = UINT32_MAX;
  uint32_t keepalive_ms = 0;  // interval with this client's jitter

  // Whether its next frame waits for something: then it is not read.
  bool waits() const { return blocked_on != kNotBlocked || throttled_until_ms != 0 || paused; }
};

// What an idle client may cost. A relay holds one of each for every client: raise these knowingly.
static_assert(sizeof(Client) <= 520);
static_assert(sizeof(Peer) <= 112);

}  // namespace derplane
