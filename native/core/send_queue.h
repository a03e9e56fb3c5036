// What waits to be written to one client.
//
//   this turn:     pieces, pointers to whole frames in the arena, a ring or a partial-frame block; nothing is copied
//   after a turn:  what the kernel did not take, copied into blocks: a frame begun, control frames, and two bounded
//   queues of packets
//
// A client that keeps up owns no memory here: `Backlog` exists only while the kernel refuses bytes.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>

#include "block_pool.h"
#include "counters.h"
#include "frame.h"
#include "page_memory.h"
#include "queue_duration.h"

namespace derplane {

enum class PieceKind : uint32_t { kRecvPackets, kForwardPackets, kControl };

// Frames that lie next to each other and go to the same client.
struct Piece {
  const uint8_t* data;
  uint32_t size;
  uint32_t frames;
  PieceKind kind;
  uint32_t next;  // index, kNoPiece at the end
};

inline constexpr uint32_t kNoPiece = UINT32_MAX;

// The pieces of one turn, given out in order and all taken back at its end. Touched lazily.
class PiecePool {
 public:
  static constexpr uint32_t kCapacity = 64 << 10;

  PiecePool() : pieces_(kCapacity) {}

  uint32_t left() const { return kCapacity - used_; }
  uint32_t take() { return used_++; }
  Piece& operator[](uint32_t i) { return pieces_[i]; }
  const Piece& operator[](uint32_t i) const { return pieces_[i]; }
  void reset() { used_ = 0; }

 private:
  PageMemory<Piece> pieces_;
  uint32_t used_ = 0;
};

// What all send queues of a shard share.
struct QueueShared {
  Counters& counters;
  BlockPool& blocks;
  PiecePool pieces = {};
  uint32_t depth = 32;             // packets in each of a client's two queues
  uint64_t max_bytes = 256 << 20;  // memory that the queues of all clients may hold together
  uint64_t bytes = 0;              // memory that they hold
  uint64_t now_ms = 0;
  QueueDuration durations = {};
  uint32_t late_frames = 0;  // frames of which spill() found that the kernel had taken them
};

// Pongs that may wait for a client; beyond, its pings are ignored. A burst of pings that arrives at once is answered,
// and a client that does not read cannot fill the queue.
inline constexpr uint32_t kMaxPongsWaiting = 32;
// Bytes of control frames (PeerGone, Pong, KeepAlive, ...) that a client may have waiting; a client over it does not
// read and is closed.
inline constexpr uint32_t kMaxControlBytes = 64 << 10;
// The same for mesh peers, which may watch: presence of a million keys.
inline constexpr uint32_t kMaxMeshControlBytes = 64 << 20;

class SendQueue {
 public:
  SendQueue() = default;
  SendQueue(const SendQueue&) = delete;
  SendQueue& operator=(const SendQueue&) = delete;

  bool hasTurn() const { return turn_first_ != kNoPiece; }
  bool hasBacklog() const { return backlog_ != nullptr; }
  bool empty() const { return !hasTurn() && !hasBacklog(); }

  // Adds one whole frame of this turn; its memory must stay as it is until the turn's end. Merges with the frame before
  // it.
  void append(QueueShared& shared, const uint8_t* frame, uint32_t size, PieceKind kind);

  // Fills `iov` in the order of sending; returns the number of entries, at most `max`.
  uint32_t gather(const QueueShared& shared, iovec* iov, uint32_t max) const;

  // The kernel took `bytes` of what gather() gave. Returns the number of frames that are now complete.
  uint32_t advance(QueueShared& shared, uint64_t bytes);

  // Ends the turn with bytes left: copies them, dropping by the queue rules. False when control frames overflowed or
  // memory ran out.
  bool spill(QueueShared& shared);

  // Drops everything, counted under `reason`.
  void clear(QueueShared& shared, DropReason reason);

  // Whose packets these are counted as.
  void setLabel(uint8_t label) { label_ = label; }
  // Gives a mesh peer its larger bound.
  void allowMeshControl() { max_control_bytes_ = kMaxMeshControlBytes; }
  // Bytes of control frames in the backlog.
  uint32_t controlBytes() const;

  uint32_t queuedPackets(bool disco) const;
  // Pongs that were appended and that the kernel has not taken yet.
  uint32_t pongsWaiting() const { return pongs_waiting_; }
  uint64_t heldMemory() const;  // bytes, as QueueShared::bytes counts them
  // RecvPacket frames that the kernel took, and their payload.
  uint64_t sentPackets() const { return sent_packets_; }
  uint64_t sentBytes() const { return sent_bytes_; }

 private:
  struct Backlog {
    Block* begun = nullptr;  // frame of which the kernel took `begun_bytes`
    uint32_t begun_bytes = 0;
    bool disco_turn = true;  // the two packet queues are served alternately, so that neither starves the other
    BlockList control;       // blocks may hold several frames
    uint32_t control_bytes = 0;
    BlockList queue[2];  // 0 other, 1 disco
    bool empty() const { return begun == nullptr && control.empty() && queue[0].empty() && queue[1].empty(); }
    BlockList* nextList();
  };

  Backlog& backlog();
  void countSent(Counters& counters, const uint8_t* frame);
  void countPackets(Counters& counters, uint32_t packets, uint32_t bytes);
  uint32_t countSentPiece(Counters& counters, const Piece& piece);
  Block* copy(QueueShared& shared, const uint8_t* frame, uint32_t size);
  bool enqueue(QueueShared& shared, const uint8_t* frame, uint32_t size);
  bool enqueueControl(QueueShared& shared, const uint8_t* frame, uint32_t size);
  void dropBlock(QueueShared& shared, Block* block, DropReason reason);
  void giveBack(QueueShared& shared, Block* block);
  uint64_t advanceBacklog(QueueShared& shared, uint64_t bytes, uint32_t& frames);

  uint32_t turn_first_ = kNoPiece;
  uint32_t turn_last_ = kNoPiece;
  uint32_t turn_bytes_ = 0;  // of the first piece, already taken by the kernel
  uint32_t pongs_waiting_ = 0;
  uint32_t max_control_bytes_ = kMaxControlBytes;
  uint8_t label_ = kNoLabel;
  uint64_t sent_packets_ = 0;
  uint64_t sent_bytes_ = 0;
  std::unique_ptr<Backlog> backlog_;
};

}  // namespace derplane
