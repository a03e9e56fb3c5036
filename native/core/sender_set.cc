#include "sender_set.h"

namespace derplane {
namespace {

constexpr uint32_t kFirstCapacity = 8;

}  // namespace

uint32_t SenderSet::find(uint64_t sender) const {
  uint32_t i = static_cast<uint32_t>(sender) & (capacity_ - 1);
  while (table_[i] != 0 && table_[i] != sender) i = (i + 1) & (capacity_ - 1);
  return i;
}

bool SenderSet::contains(uint64_t sender) const {
  sender = nonZero(sender);
  if (capacity_ == 0) return count_ > 0 && last_ == sender;
  return table_[find(sender)] == sender;
}

void SenderSet::place(uint64_t sender) {
  table_[find(sender)] = sender;
  ++count_;
}

void SenderSet::resize(uint32_t capacity) {
  const uint32_t old_capacity = capacity_;
  const auto old = std::move(table_);
  const bool one = count_ == 1 && old_capacity == 0;
  capacity_ = capacity;
  table_ = std::make_unique<uint64_t[]>(capacity_);
  count_ = 0;
  if (one) place(last_);
  for (uint32_t i = 0; i < old_capacity; ++i) {
    if (old[i] != 0) place(old[i]);
  }
}

SenderSet::Noted SenderSet::note(uint64_t sender) {
  sender = nonZero(sender);
  if (many_ != nullptr) {
    many_->ever.add(sender);
    last_ = sender;
    return Noted::kKnown;
  }
  if (contains(sender)) {
    last_ = sender;
    return Noted::kKnown;
  }
  if (count_ == kMaxSenders) return Noted::kTooMany;
  if (count_ > 0) {  // the usual case owns no table
    if (2 * (count_ + 1) > capacity_) resize(capacity_ == 0 ? kFirstCapacity : 2 * capacity_);
    place(sender);
  } else {
    count_ = 1;
  }
  last_ = sender;
  return Noted::kNew;
}

void SenderSet::becomeMany(std::unique_ptr<ManySenders> many) {
  forEach([&](uint64_t sender) { many->ever.add(sender); });
  many_ = std::move(many);
  table_.reset();
  capacity_ = count_ = 0;
  last_ = 0;
}

bool SenderSet::remove(uint64_t sender) {
  sender = nonZero(sender);
  if (!contains(sender)) return false;
  --count_;
  if (last_ == sender) last_ = 0;
  if (capacity_ == 0) return true;
  if (count_ == 0) {
    table_.reset();
    capacity_ = 0;
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
  if (capacity_ > kFirstCapacity && 8 * count_ <= capacity_) resize(capacity_ / 2);
  return true;
}

}  // namespace derplane
