#include "send_queue.h"

#include <algorithm>
#include <new>

namespace derplane {
namespace {

uint32_t fixedBytes(FrameType type) {
  switch (type) {
    case FrameType::kRecvPacket:
      return kFrameHeaderSize + kKeySize;
    case FrameType::kForwardPacket:
      return kFrameHeaderSize + kForwardPacketFixed;
    default:
      return 0;
  }
}

bool isPacket(const uint8_t* frame) { return fixedBytes(frameType(frame)) != 0; }

uint32_t payloadBytes(const uint8_t* frame) {
  return frameLength(frame) + kFrameHeaderSize - fixedBytes(frameType(frame));
}

bool isDisco(const uint8_t* frame) { return looksLikeDisco(frame + fixedBytes(frameType(frame)), payloadBytes(frame)); }

// What a block of `size` bytes costs: tiny frames hold far more memory than they have bytes, so the budget counts
// memory.
uint32_t memoryOf(uint32_t size) { return static_cast<uint32_t>(sizeof(Block)) + std::max(size, BlockPool::kSmall); }

}  // namespace

void SendQueue::countPackets(Counters& counters, uint32_t packets, uint32_t bytes) {
  sent_packets_ += packets;
  sent_bytes_ += bytes;
  counters.add(Counter::packets_sent, packets);
  counters.add(Counter::bytes_sent, bytes);
  counters.label(label_, LabelCounter::packets_sent, packets);
  counters.label(label_, LabelCounter::bytes_sent, bytes);
}

void SendQueue::countSent(Counters& counters, const uint8_t* frame) {
  switch (frameType(frame)) {
    case FrameType::kRecvPacket:
      countPackets(counters, 1, payloadBytes(frame));
      break;
    case FrameType::kForwardPacket:
      counters.add(Counter::packets_forwarded_out);
      break;
    case FrameType::kPong:
      counters.add(Counter::sent_pong);
      --pongs_waiting_;
      break;
    default:
      break;
  }
}

uint32_t SendQueue::countSentPiece(Counters& counters, const Piece& piece) {
  switch (piece.kind) {
    case PieceKind::kRecvPackets:
      countPackets(counters, piece.frames, piece.size - piece.frames * kPacketFrameFixed);
      break;
    case PieceKind::kForwardPackets:
      counters.add(Counter::packets_forwarded_out, piece.frames);
      break;
    case PieceKind::kControl:
      for (uint32_t at = 0; at < piece.size; at += kFrameHeaderSize + frameLength(piece.data + at)) {
        countSent(counters, piece.data + at);
      }
      break;
  }
  return piece.frames;
}

BlockList* SendQueue::Backlog::nextList() {
  if (!control.empty()) return &control;
  BlockList* first = &queue[disco_turn ? 1 : 0];
  if (!first->empty()) return first;
  BlockList* second = &queue[disco_turn ? 0 : 1];
  return second->empty() ? nullptr : second;
}

SendQueue::Backlog& SendQueue::backlog() {
  if (backlog_ == nullptr) backlog_ = std::make_unique<Backlog>();
  return *backlog_;
}

void SendQueue::append(QueueShared& shared, const uint8_t* frame, uint32_t size, PieceKind kind) {
  if (kind == PieceKind::kControl && frameType(frame) == FrameType::kPong) ++pongs_waiting_;
  if (turn_last_ != kNoPiece) {
    Piece& last = shared.pieces[turn_last_];
    if (last.data + last.size == frame && last.kind == kind) {
      last.size += size;
      ++last.frames;
      return;
    }
  }
  const uint32_t i = shared.pieces.take();
  shared.pieces[i] = Piece{frame, size, 1, kind, kNoPiece};
  if (turn_last_ == kNoPiece) {
    turn_first_ = i;
  } else {
    shared.pieces[turn_last_].next = i;
  }
  turn_last_ = i;
}

uint32_t SendQueue::gather(const QueueShared& shared, iovec* iov, uint32_t max) const {
  uint32_t n = 0;
  if (backlog_ != nullptr) {
    const Backlog& b = *backlog_;
    if (b.begun != nullptr && n < max) {
      iov[n++] = {b.begun->bytes() + b.begun_bytes, b.begun->size - b.begun_bytes};
    }
    for (Block* c = b.control.head; c != nullptr && n < max; c = c->next) iov[n++] = {c->bytes(), c->size};
    Block* lists[2] = {b.queue[0].head, b.queue[1].head};
    bool disco = b.disco_turn;
    while (n < max && (lists[0] != nullptr || lists[1] != nullptr)) {
      if (lists[disco ? 1 : 0] == nullptr) disco = !disco;
      Block*& block = lists[disco ? 1 : 0];
      iov[n++] = {block->bytes(), block->size};
      block = block->next;
      disco = !disco;
    }
  }
  uint32_t skip = turn_bytes_;
  for (uint32_t i = turn_first_; i != kNoPiece && n < max; i = shared.pieces[i].next) {
    iov[n++] = {const_cast<uint8_t*>(shared.pieces[i].data) + skip, shared.pieces[i].size - skip};
    skip = 0;
  }
  return n;
}

uint64_t SendQueue::advanceBacklog(QueueShared& shared, uint64_t bytes, uint32_t& frames) {
  Backlog& b = *backlog_;
  while (bytes > 0 && !b.empty()) {
    if (b.begun == nullptr) {
      BlockList* list = b.nextList();
      if (list != &b.control) b.disco_turn = list != &b.queue[1];
      b.begun = list->pop();
      if (list != &b.control) shared.durations.waited(shared.now_ms - b.begun->queued_ms);
      b.begun_bytes = 0;
      if (list == &b.control) b.control_bytes -= b.begun->size;
    }
    const uint32_t left = b.begun->size - b.begun_bytes;
    if (bytes < left) {
      b.begun_bytes += static_cast<uint32_t>(bytes);
      return 0;
    }
    bytes -= left;
    const Piece whole{b.begun->bytes(), b.begun->size, 1, PieceKind::kControl, kNoPiece};
    frames += countSentPiece(shared.counters, whole);  // packets too: kControl counts each frame by its type
    giveBack(shared, b.begun);
    b.begun = nullptr;
  }
  if (b.empty()) backlog_.reset();
  return bytes;
}

uint32_t SendQueue::advance(QueueShared& shared, uint64_t bytes) {
  uint32_t frames = 0;
  if (backlog_ != nullptr) bytes = advanceBacklog(shared, bytes, frames);
  while (bytes > 0 && turn_first_ != kNoPiece) {
    Piece& piece = shared.pieces[turn_first_];
    const uint32_t left = piece.size - turn_bytes_;
    if (bytes < left) {
      turn_bytes_ += static_cast<uint32_t>(bytes);
      break;
    }
    bytes -= left;
    frames += countSentPiece(shared.counters, piece);
    if (piece.kind != PieceKind::kControl) shared.durations.didNotWait(piece.frames);
    turn_first_ = piece.next;
    turn_bytes_ = 0;
  }
  if (turn_first_ == kNoPiece) turn_last_ = kNoPiece;
  return frames;
}

Block* SendQueue::copy(QueueShared& shared, const uint8_t* frame, uint32_t size) {
  Block* block = shared.blocks.take(size);
  if (block == nullptr) return nullptr;
  std::memcpy(block->bytes(), frame, size);
  block->size = size;
  block->queued_ms = shared.now_ms;
  shared.bytes += memoryOf(size);
  shared.counters.add(Counter::queue_bytes, memoryOf(size));
  return block;
}

void SendQueue::giveBack(QueueShared& shared, Block* block) {
  shared.bytes -= memoryOf(block->size);
  shared.counters.add(Counter::queue_bytes, -int64_t{memoryOf(block->size)});
  shared.blocks.give(block);
}

void SendQueue::dropBlock(QueueShared& shared, Block* block, DropReason reason) {
  if (isPacket(block->bytes())) {
    shared.counters.drop(reason, isDisco(block->bytes()), payloadBytes(block->bytes()), label_);
  }
  giveBack(shared, block);
}

bool SendQueue::enqueueControl(QueueShared& shared, const uint8_t* frame, uint32_t size) {
  Backlog& b = *backlog_;
  if (b.control_bytes + size > max_control_bytes_) return false;
  Block* last = b.control.tail;
  if (last != nullptr && last->size + size <= BlockPool::kSmall) {  // small frames share a block, which costs the same
    std::memcpy(last->bytes() + last->size, frame, size);
    last->size += size;
  } else {
    Block* block = copy(shared, frame, size);
    if (block == nullptr) return false;
    b.control.push(block);
  }
  b.control_bytes += size;
  return true;
}

bool SendQueue::enqueue(QueueShared& shared, const uint8_t* frame, uint32_t size) {
  Backlog& b = backlog();
  if (!isPacket(frame)) return enqueueControl(shared, frame, size);
  const bool disco = isDisco(frame);
  BlockList& queue = b.queue[disco ? 1 : 0];
  if (queue.count >= shared.depth) {
    if (queue.empty()) {  // a depth of 0 keeps nothing
      shared.counters.drop(DropReason::queue_head, disco, payloadBytes(frame), label_);
      return true;
    }
    shared.durations.waited(shared.now_ms - queue.head->queued_ms);
    dropBlock(shared, queue.pop(), DropReason::queue_head);
  }
  Block* block = shared.bytes + memoryOf(size) <= shared.max_bytes ? copy(shared, frame, size) : nullptr;
  if (block == nullptr) {
    shared.counters.drop(DropReason::queue_tail, disco, payloadBytes(frame), label_);
    return true;
  }
  queue.push(block);
  return true;
}

bool SendQueue::spill(QueueShared& shared) {
  bool ok = true;
  uint32_t taken = turn_bytes_;
  for (uint32_t i = turn_first_; i != kNoPiece; i = shared.pieces[i].next) {
    const Piece& piece = shared.pieces[i];
    for (uint32_t at = 0; at < piece.size;) {
      const uint8_t* frame = piece.data + at;
      const uint32_t size = kFrameHeaderSize + frameLength(frame);
      at += size;
      if (taken >= size) {  // whole frames of a piece that the kernel took in part
        taken -= size;
        countSent(shared.counters, frame);
        ++shared.late_frames;
        if (isPacket(frame)) shared.durations.didNotWait(1);
      } else if (taken > 0) {
        // The kernel has the frame's beginning: it must be finished first and cannot be dropped. It is over no budget:
        // one a client.
        Backlog& b = backlog();
        b.begun = copy(shared, frame, size);
        b.begun_bytes = taken;
        taken = 0;
        ok = ok && b.begun != nullptr;
      } else {
        ok = enqueue(shared, frame, size) && ok;
      }
    }
  }
  turn_first_ = turn_last_ = kNoPiece;
  turn_bytes_ = 0;
  if (backlog_ != nullptr && backlog_->empty()) backlog_.reset();
  return ok;
}

void SendQueue::clear(QueueShared& shared, DropReason reason) {
  for (uint32_t i = turn_first_; i != kNoPiece; i = shared.pieces[i].next) {
    const Piece& piece = shared.pieces[i];
    uint32_t taken = i == turn_first_ ? turn_bytes_ : 0;
    for (uint32_t at = 0; at < piece.size;) {
      const uint8_t* frame = piece.data + at;
      const uint32_t size = kFrameHeaderSize + frameLength(frame);
      at += size;
      if (taken >= size) {
        taken -= size;
        countSent(shared.counters, frame);
        continue;
      }
      taken = 0;
      if (isPacket(frame)) shared.counters.drop(reason, isDisco(frame), payloadBytes(frame), label_);
    }
  }
  turn_first_ = turn_last_ = kNoPiece;
  turn_bytes_ = 0;
  pongs_waiting_ = 0;
  if (backlog_ == nullptr) return;
  Backlog& b = *backlog_;
  if (b.begun != nullptr) dropBlock(shared, b.begun, reason);
  for (BlockList* list : {&b.control, &b.queue[0], &b.queue[1]}) {
    while (!list->empty()) dropBlock(shared, list->pop(), reason);
  }
  backlog_.reset();
}

uint32_t SendQueue::controlBytes() const { return backlog_ == nullptr ? 0 : backlog_->control_bytes; }

uint32_t SendQueue::queuedPackets(bool disco) const {
  return backlog_ == nullptr ? 0 : backlog_->queue[disco ? 1 : 0].count;
}

uint64_t SendQueue::heldMemory() const {
  if (backlog_ == nullptr) return 0;
  uint64_t bytes = backlog_->begun == nullptr ? 0 : memoryOf(backlog_->begun->size);
  for (const BlockList* list : {&backlog_->control, &backlog_->queue[0], &backlog_->queue[1]}) {
    for (const Block* b = list->head; b != nullptr; b = b->next) bytes += memoryOf(b->size);
  }
  return bytes;
}

}  // namespace derplane
