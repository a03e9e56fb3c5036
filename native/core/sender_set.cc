#include "sender_set.h"

namespace derplane {
namespace {

constexpr uint32_t kFirstCapacity = 8;
uint64_t nonZero(uint64_t hash) { return hash == 0 ? 1 : hash; }

}  // namespace

uint32_t SenderSet::find(uint64_t sender) const {
  uint32_t i = static_cast<uint32_t>(sender) & (capacity_ - 1);
  while (table_[i] != 0 && table_[i] != sender) i = (i + 1) & (capacity_ - 1);
  return i;
}

bool SenderSet::contains(uint64_t sender) const {
  sender = nonZero(sender);
  return many_ != nullptr || (capacity_ == 0 ? last_ == sender : table_[find(sender)] == sender);
}

void SenderSet::place(uint64_t sender) {
  const uint32_t i = find(sender);
  if (table_[i] == sender) return;
  table_[i] = sender;
  ++count_;
}

void SenderSet::insert(uint64_t sender) {
  sender = nonZero(sender);
  if (sender == last_) return;
  if (many_ != nullptr) {
    many_->add(sender);
    last_ = sender;
    return;
  }
  if (count_ == 0) {  // the usual case owns no table
    last_ = sender;
    count_ = 1;
    return;
  }
  if (capacity_ != 0 && table_[find(sender)] == sender) {
    last_ = sender;
    return;
  }
  if (count_ == kMaxSenders) {
    many_ = std::make_unique<HyperLogLog>();
    for (uint32_t i = 0; i < capacity_; ++i) {
      if (table_[i] != 0) many_->add(table_[i]);
    }
    many_->add(sender);
    table_.reset();
    capacity_ = 0;
    last_ = sender;
    return;
  }
  if (2 * (count_ + 1) > capacity_) {
    const uint32_t old_capacity = capacity_;
    const auto old = std::move(table_);
    capacity_ = old_capacity == 0 ? kFirstCapacity : 2 * old_capacity;
    table_ = std::make_unique<uint64_t[]>(capacity_);
    count_ = 0;
    if (old_capacity == 0) place(last_);
    for (uint32_t i = 0; i < old_capacity; ++i) {
      if (old[i] != 0) place(old[i]);
    }
  }
  place(sender);
  last_ = sender;
}

bool SenderSet::remove(uint64_t sender) {
  sender = nonZero(sender);
  if (many_ != nullptr) return true;
  if (!contains(sender)) return false;
  --count_;
  if (capacity_ == 0) {
    last_ = 0;
    return true;
  }
  // Close the gap: move back every later entry of the run that may stand there.
  uint32_t gap = find(sender);
  table_[gap] = 0;
  for (uint32_t i = (gap + 1) & (capacity_ - 1); table_[i] != 0; i = (i + 1) & (capacity_ - 1)) {
    const uint32_t home = static_cast<uint32_t>(table_[i]) & (capacity_ - 1);
    if (((i - home) & (capacity_ - 1)) < ((i - gap) & (capacity_ - 1))) continue;
    table_[gap] = table_[i];
    table_[i] = 0;
    gap = i;
  }
  if (count_ == 0) {
    table_.reset();
    capacity_ = 0;
    last_ = 0;
  } else if (last_ == sender) {
    last_ = 0;
  }
  return true;
}

}  // namespace derplane
