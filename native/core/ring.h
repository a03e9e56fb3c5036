// One-way byte ring between two shards, in shared memory: one producer thread, one consumer thread, no locks.
//
//   | RingShared (3 cache lines) | data, a power of two of bytes ......................... |
//                                   ^ tail (consumer)        ^ head (producer)
//
// Records are contiguous and 8-byte aligned, so a consumer's queues may point into the ring until it releases them; a
// record that does not fit before the end of the data is preceded by a pad. Positions only rise; the index is position
// & mask.
//
// Waiting for room. `waits` belongs to the producer, `tail` and `told` to the consumer; no one else writes them.
//
//   producer, finds no room               consumer, in release()
//   1. waits = 1                          a. tail = what it read
//   2. fence                              b. fence
//   3. load tail: still no room?          c. load waits: not 0? wake the producer
//      then it may wait                   d. told = tail
//
// One of the two fences comes first. If it is the consumer's, step 3 sees the new tail. If it is the producer's, step c
// sees that the producer waits. So after step 3 found no room, the first release wakes the producer.
//
// `waits` says that someone waits, not who. It stays 1 until the owner of the producer says that no one waits any more
// (nobodyWaits): a client that finds room after all, or gives up, leaves the flag to the others. A wake-up that no one
// needs is harmless. Each wake-up means: look at all who wait, in order, until one finds no room (steps 1 to 3 again).
//
// `told` lets the producer see, without a guess, that a wake-up was lost (see roomWasMade).
#pragma once

#include <cstddef>
#include <cstdint>

#include "atomic.h"
#include "frame.h"

namespace derplane {

enum class RecordKind : uint8_t {
  kPad,           // skip to the next record
  kPacket,        // RingRecord followed by a whole RecvPacket frame
  kNotHere,       // to the sender's shard: PeerGone(not here) about `destination`; no frame follows
  kGone,          // to all shards: `destination` left the region; no frame follows
  kClosePeer,     // to the key's shard: close the connections of `destination`; no frame follows
  kForward,       // to a link's shard: RingRecord followed by a whole ForwardPacket frame; the client named is the link
  kAddForwarder,  // to the key's shard: the link named can reach `destination`; no frame follows
  kRemoveForwarder,  // to the key's shard: it no longer can; no frame follows
  kRegistered,       // to a link's shard: so many (client_slot) of its Add- and RemoveForwarders took effect; no frame
  kWatch,            // to all shards: the client named wants to hear of every key; no frame follows
  kUnwatch,          // to all shards: it does not any more; no frame follows
  kPresent,          // to a watcher's shard: RingRecord followed by a whole PeerPresent frame for the client named
  kAbsent,           // to a watcher's shard: `destination` left, for the client named; no frame follows
  kFlooded,  // to a watcher's shard: the named client has heard of all keys of the sending shard; no frame follows
};

struct RingRecord {
  uint32_t size;  // of the whole record, a multiple of 8
  RecordKind kind;
  uint8_t label;         // kPacket: the sender's
  uint8_t wants_reply;   // kPacket: the sender may hear that the destination is not here
  uint8_t forwarded;     // kPacket: came from a mesh peer, never forwarded again
  uint32_t client_slot;  // kPacket: the sender in its shard; kNotHere, kPresent, kAbsent, kFlooded: who hears of it;
                         // others: link or watcher
  uint32_t client_generation;  // so that a successor in the same slot does not hear it
  uint64_t destination_hash;
  uint64_t source_hash;
  Key destination;
};
static_assert(sizeof(RingRecord) == 64);

inline constexpr uint32_t kRingAlign = 64;
inline constexpr uint32_t kMaxRingRecord = (sizeof(RingRecord) + kMaxFrameSize + 7) & ~7u;
// Room for three records of the largest size, so that one always fits however the wrap falls.
inline constexpr size_t kMinRingBytes = 256 << 10;
// What a SharedArrayBuffer must hold besides a ring's data: the shared header, and the bytes lost to alignment.
inline constexpr size_t kRingOverhead = 256;

// The producer's values and the consumer's lie on separate cache lines. `waits` is apart from `head`: a consumer
// reads it after each release, while the producer writes heads.
struct RingShared {
  alignas(kRingAlign) Atomic<uint64_t> head;
  alignas(kRingAlign) Atomic<uint64_t> tail;
  Atomic<uint64_t> told;  // the tail of the last release() that also did its wake-up
  alignas(kRingAlign) Atomic<uint32_t> waits;
};
static_assert(Atomic<uint64_t>::is_always_lock_free);
static_assert(sizeof(RingShared) + kRingAlign <= kRingOverhead);

// Memory of one ring: base rounded up to a cache line (SharedArrayBuffers may start at 32), capacity rounded down to a
// power of two.
struct RingMemory {
  RingShared* shared = nullptr;
  uint8_t* data = nullptr;
  uint64_t capacity = 0;

  static RingMemory in(uint8_t* bytes, size_t size);
};

// The producer's half. All calls on the producer's thread.
class RingProducer {
 public:
  RingProducer() = default;
  explicit RingProducer(RingMemory memory);

  bool valid() const { return memory_.shared != nullptr; }

  // Space for a record of `size` bytes (header included, any alignment), or null when there is no room. At most one
  // reservation is open; a later reserve without commit replaces it.
  RingRecord* reserve(uint32_t size);
  // Makes the reserved record part of what publish() shows. Sets record->size.
  void commit();
  // Shows all committed records to the consumer; true when there were any.
  bool publish();
  // Says that someone waits for `size` bytes. True: there is no room, and the release that makes room wakes us.
  // False: there is room after all; others may wait all the same, so the flag stays. What was committed is published
  // first, else both sides could sleep on it.
  bool waitForRoom(uint32_t size);
  // The flag is set.
  bool waits() const { return waits_; }
  // Clears the flag. Only for the owner, who knows all that wait.
  void nobodyWaits();
  // There is room for what the last waitForRoom() did not find room for, and the consumer has finished the wake-up for
  // it. So that wake-up is on its way, or was handled, or is lost. Exact while the consumer runs: a consumer that has
  // moved its tail and not woken us yet has not moved `told`.
  bool roomWasMade() const;

 private:
  uint64_t room() const { return memory_.capacity - (head_ - tail_seen_); }
  uint64_t needed(uint32_t size) const;

  RingMemory memory_;
  uint64_t head_ = 0;       // end of committed records
  uint64_t published_ = 0;  // what the consumer may see
  uint64_t tail_seen_ = 0;  // a lower bound of the consumer's tail
  uint64_t wanted_ = 0;     // where the record would have ended that the last waitForRoom() found no room for
  bool waits_ = false;      // what `waits` holds
  RingRecord* reserved_ = nullptr;
  uint32_t reserved_size_ = 0;
};

// The consumer's half. All calls on the consumer's thread.
class RingConsumer {
 public:
  RingConsumer() = default;
  explicit RingConsumer(RingMemory memory);

  bool valid() const { return memory_.shared != nullptr; }

  // Next record, or null. It stays readable, and its frame writable, until release().
  RingRecord* next();
  // Gives everything that next() returned back to the producer. Calls `wake` when someone waits for room.
  template <typename Wake>
  void release(Wake&& wake) {
    if (read_ == released_) return;
    if (moveTail()) wake();
    told();
  }
  bool empty();

 private:
  bool moveTail();
  void told();

  RingMemory memory_;
  uint64_t read_ = 0;  // end of what next() returned
  uint64_t released_ = 0;
  uint64_t head_seen_ = 0;
};

}  // namespace derplane
