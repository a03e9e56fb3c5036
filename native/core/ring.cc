#include "ring.h"

#include <bit>
#include <new>

namespace derplane {
namespace {

uint32_t aligned(uint32_t size) { return (size + 7) & ~7u; }

}  // namespace

RingMemory RingMemory::in(uint8_t* bytes, size_t size) {
  const auto address = reinterpret_cast<uintptr_t>(bytes);
  const size_t skip = (kRingAlign - address % kRingAlign) % kRingAlign;
  RingMemory m;
  if (size < skip + sizeof(RingShared) + kMinRingBytes) return m;
  m.shared = reinterpret_cast<RingShared*>(bytes + skip);
  m.data = bytes + skip + sizeof(RingShared);
  m.capacity = std::bit_floor(size - skip - sizeof(RingShared));
  return m;
}

RingProducer::RingProducer(RingMemory memory) : memory_(memory) {
  head_ = published_ = memory.shared->head.load(std::memory_order_relaxed);
  tail_seen_ = memory.shared->tail.load(std::memory_order_acquire);
}

uint64_t RingProducer::needed(uint32_t size) const {
  const uint64_t to_end = memory_.capacity - (head_ & (memory_.capacity - 1));
  return size <= to_end ? size : to_end + size;
}

RingRecord* RingProducer::reserve(uint32_t size) {
  size = aligned(size);
  const uint64_t need = needed(size);
  if (room() < need) {
    // Acquire: the consumer's reads of the bytes we are about to overwrite happened before it moved the tail.
    tail_seen_ = memory_.shared->tail.load(std::memory_order_acquire);
    if (room() < need) return nullptr;
  }
  uint8_t* at = memory_.data + (head_ & (memory_.capacity - 1));
  if (need != size) {
    auto* pad = reinterpret_cast<RingRecord*>(at);
    // Only size and kind: the pad may be as short as 8 bytes.
    pad->size = static_cast<uint32_t>(need - size);
    pad->kind = RecordKind::kPad;
    head_ += need - size;
    at = memory_.data;
  }
  reserved_ = reinterpret_cast<RingRecord*>(at);
  reserved_size_ = size;
  return reserved_;
}

void RingProducer::commit() {
  reserved_->size = reserved_size_;
  head_ += reserved_size_;
  reserved_ = nullptr;
}

bool RingProducer::publish() {
  if (head_ == published_) return false;
  published_ = head_;
  // Release: the records' bytes are visible before the head that covers them.
  memory_.shared->head.store(head_, std::memory_order_release);
  return true;
}

bool RingProducer::waitForRoom(uint32_t size) {
  publish();
  waits_ = true;
  memory_.shared->waits.store(1, std::memory_order_relaxed);
  // Pairs with the fence in RingConsumer::release: either we see the new tail, or the consumer sees that we wait.
  fullFence();
  tail_seen_ = memory_.shared->tail.load(std::memory_order_acquire);
  const uint64_t need = needed(aligned(size));
  if (room() >= need) return false;
  wanted_ = head_ + need;
  return true;
}

void RingProducer::nobodyWaits() {
  waits_ = false;
  // Relaxed: a consumer that still sees 1 wakes us once too often, and the next waitForRoom() comes with a fence.
  memory_.shared->waits.store(0, std::memory_order_relaxed);
}

bool RingProducer::roomWasMade() const {
  // Acquire: pairs with the release of `told`; the wake-up that came before it is visible from here on.
  return waits_ && memory_.shared->told.load(std::memory_order_acquire) + memory_.capacity >= wanted_;
}

RingConsumer::RingConsumer(RingMemory memory) : memory_(memory) {
  read_ = released_ = memory.shared->tail.load(std::memory_order_relaxed);
  head_seen_ = read_;
}

RingRecord* RingConsumer::next() {
  for (;;) {
    if (read_ == head_seen_) {
      // Acquire: pairs with the producer's release of head; the records below it are complete.
      head_seen_ = memory_.shared->head.load(std::memory_order_acquire);
      if (read_ == head_seen_) return nullptr;
    }
    auto* record = reinterpret_cast<RingRecord*>(memory_.data + (read_ & (memory_.capacity - 1)));
    read_ += record->size;
    if (record->kind != RecordKind::kPad) return record;
  }
}

// Whether the producer waits.
bool RingConsumer::moveTail() {
  released_ = read_;
  // Release: our reads of the records happened before the producer may overwrite them.
  memory_.shared->tail.store(released_, std::memory_order_release);
  // Pairs with the fence in RingProducer::waitForRoom: either we see that it waits, or it sees the new tail.
  fullFence();
  return memory_.shared->waits.load(std::memory_order_relaxed) != 0;
}

void RingConsumer::told() {
  // Release: the wake-up happened before anyone who sees this value looks for it.
  memory_.shared->told.store(released_, std::memory_order_release);
}

bool RingConsumer::empty() {
  return read_ == head_seen_ && memory_.shared->head.load(std::memory_order_acquire) == read_;
}

}  // namespace derplane
