// Bump memory for one turn: what was received and the small control frames made meanwhile. Reset at the turn's end,
// when every byte of it was sent or copied, so its beginning stays in the cache and its end is never touched on a quiet
// relay.
#pragma once

#include <cstdint>

#include "page_memory.h"

namespace derplane {

class Arena {
 public:
  static constexpr uint32_t kSize = 8 << 20;

  Arena() : bytes_(kSize) {}

  uint32_t left() const { return kSize - used_; }
  // The caller checks left() first.
  uint8_t* end() { return bytes_.get() + used_; }
  uint8_t* take(uint32_t size) {
    uint8_t* p = end();
    used_ += size;
    return p;
  }
  void reset() { used_ = 0; }

 private:
  PageMemory<uint8_t> bytes_;
  uint32_t used_ = 0;
};

}  // namespace derplane
