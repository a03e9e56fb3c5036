// Memory for bytes that outlive a turn: send queues, partial frames, reads held back. One per shard, used by its thread
// only. Blocks of up to kSmall bytes are recycled through a free list, larger ones go back to malloc at once.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace derplane {

// A block's bytes follow its header.
struct Block {
  Block* next;
  uint64_t queued_ms;  // when a packet entered a send queue
  uint32_t capacity;
  uint32_t size;

  uint8_t* bytes() { return reinterpret_cast<uint8_t*>(this + 1); }
};

class BlockPool {
 public:
  // Fits a frame of a full-size tunnel packet, header and keys included.
  static constexpr uint32_t kSmall = 2048 - sizeof(Block);
  // At most 4 MiB stay in the free list.
  static constexpr uint32_t kMaxFree = 2048;

  BlockPool() = default;
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;
  ~BlockPool() {
    while (free_ != nullptr) {
      Block* b = free_;
      free_ = b->next;
      std::free(b);
    }
  }

  // A block of at least `capacity` bytes, size 0; null when memory is exhausted.
  Block* take(uint32_t capacity) {
    Block* b;
    if (capacity <= kSmall && free_ != nullptr) {
      b = free_;
      free_ = b->next;
      --free_count_;
    } else {
      if (capacity < kSmall) capacity = kSmall;
      b = static_cast<Block*>(std::malloc(sizeof(Block) + capacity));
      if (b == nullptr) return nullptr;
      b->capacity = capacity;
    }
    b->next = nullptr;
    b->queued_ms = 0;
    b->size = 0;
    return b;
  }

  void give(Block* b) {
    if (b->capacity == kSmall && free_count_ < kMaxFree) {
      b->next = free_;
      free_ = b;
      ++free_count_;
    } else {
      std::free(b);
    }
  }

 private:
  Block* free_ = nullptr;
  uint32_t free_count_ = 0;
};

// First in, first out, linked through Block::next.
struct BlockList {
  Block* head = nullptr;
  Block* tail = nullptr;
  uint32_t count = 0;

  bool empty() const { return head == nullptr; }

  void push(Block* b) {
    b->next = nullptr;
    (head == nullptr ? head : tail->next) = b;
    tail = b;
    ++count;
  }

  Block* pop() {
    Block* b = head;
    head = b->next;
    if (head == nullptr) tail = nullptr;
    --count;
    return b;
  }
};

}  // namespace derplane
