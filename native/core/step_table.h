// A hash table that never stops its thread for long: it grows and shrinks in bounded steps, and gives its memory back
// to the kernel. Open addressing with linear probing. While it changes its size, entries lie in two tables; each
// change, and step(), moves some of them on.
//
// `Traits` has `Entry`, trivially copyable, where all zero bytes mean an empty place; `bool isEmpty(const Entry&)
// const`; `uint64_t hashOf(const Entry&) const`, seeded if strangers choose the entries; and kMaxLoadQuarters, of four.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "page_memory.h"

namespace derplane {

template <typename Traits>
class StepTable {
 public:
  using Entry = typename Traits::Entry;
  static_assert(std::is_trivially_copyable_v<Entry>);

  // Places of the table before that each change moves on. With 16 it is empty long before this one is full.
  static constexpr uint32_t kPlacesPerChange = 16;

  explicit StepTable(Traits traits = {}) : traits_(traits), table_(kFirstCapacity) {}
  StepTable(StepTable&&) noexcept = default;
  StepTable& operator=(StepTable&&) noexcept = default;

  size_t size() const { return size_; }
  bool isEmpty(const Entry& entry) const { return traits_.isEmpty(entry); }

  // The entry of that hash for which `match` holds, or null. It stays where it is until the next change.
  template <typename Match>
  Entry* find(uint64_t hash, Match match) const {
    if (Entry* entry = findIn(table_, hash, match)) return entry;
    return before_.places() == 0 ? nullptr : findIn(before_, hash, match);
  }

  // Enters what find() did not find. The entry stays where it is until the next change.
  Entry& insert(uint64_t hash, const Entry& entry) {
    if (4 * (size_ + 1) > Traits::kMaxLoadQuarters * table_.places()) resize(2 * table_.places());
    ++size_;
    Entry& place = put(hash, entry);
    step(kPlacesPerChange);
    return place;
  }

  void erase(Entry* entry) {
    Table& table = table_.holds(entry) ? table_ : before_;
    closeGap(table, static_cast<size_t>(entry - table.begin()));
    --size_;
    if (!step(kPlacesPerChange) && table_.places() > kFirstCapacity && 8 * size_ < table_.places()) {
      resize(std::max(kFirstCapacity, std::bit_ceil(4 * size_)));
    }
  }

  // Moves at least `places` of the table before; false when there is none.
  bool step(uint32_t places) {
    if (before_.places() == 0) return false;
    const size_t stop = std::min<size_t>(before_.places(), moved_ + places);
    // Whole runs only: the rest of one that is cut could not be found.
    while (moved_ < before_.places() && (moved_ < stop || !traits_.isEmpty(before_[moved_]))) {
      Entry& entry = before_[moved_++];
      if (traits_.isEmpty(entry)) continue;
      put(traits_.hashOf(entry), entry);
      entry = Entry{};
    }
    if (moved_ == before_.places()) {
      before_ = Table();
    } else {
      discarded_ = before_.discard(discarded_, moved_);
    }
    return true;
  }

  // Visits all entries, in no order. Nothing may change meanwhile.
  template <typename Visit>
  void forEach(Visit visit) const {
    for (const Table* table : {&table_, &before_}) {
      for (size_t i = 0; i < table->places(); ++i) {
        if (!traits_.isEmpty((*table)[i])) visit((*table)[i]);
      }
    }
  }

  // Visits the entries in up to `places` places from number `from` on; returns where to go on, or 0 after the last one.
  // Nothing may change between the calls.
  template <typename Visit>
  size_t forEachFrom(size_t from, size_t places, Visit visit) const {
    const size_t all = table_.places() + before_.places();
    const size_t stop = std::min(all, from + places);
    for (size_t i = from; i < stop; ++i) {
      const Entry& entry = i < table_.places() ? table_[i] : before_[i - table_.places()];
      if (!traits_.isEmpty(entry)) visit(entry);
    }
    return stop == all ? 0 : stop;
  }

  // The same for a table that is of no other use any more: the memory of what was visited returns to the kernel.
  template <typename Visit>
  size_t drainFrom(size_t from, size_t places, Visit visit) {
    const size_t next = forEachFrom(from, places, visit);
    const size_t own = table_.places();
    const size_t reached = next == 0 ? own + before_.places() : next;
    table_.discard(std::min(from, own), std::min(reached, own));
    before_.discard(std::max(from, own) - own, std::max(reached, own) - own);
    return next;
  }

 private:
  static constexpr size_t kFirstCapacity = std::bit_floor(4096 / sizeof(Entry));  // a page
  // Memory goes back to the kernel in blocks, since a table of a million entries takes it milliseconds. As long as the
  // pages of any machine, or several of them.
  static constexpr size_t kBlockBytes = 256 << 10;
  static constexpr size_t kPlacesPerBlock = kBlockBytes / sizeof(Entry);
  static_assert(kBlockBytes % sizeof(Entry) == 0);

  // A power of two of places, or none.
  class Table {
   public:
    Table() = default;
    explicit Table(size_t places) : memory_(places), mask_(places - 1) {}
    Table(Table&& other) noexcept : memory_(std::move(other.memory_)), mask_(std::exchange(other.mask_, kNone)) {}
    Table& operator=(Table&& other) noexcept {
      memory_ = std::move(other.memory_);
      mask_ = std::exchange(other.mask_, kNone);
      return *this;
    }

    size_t places() const { return mask_ + 1; }
    size_t next(size_t i) const { return (i + 1) & mask_; }
    size_t home(uint64_t hash) const { return static_cast<size_t>(hash) & mask_; }
    size_t distance(size_t from, size_t to) const { return (to - from) & mask_; }
    Entry* begin() const { return memory_.get(); }
    bool holds(const Entry* entry) const { return entry >= begin() && entry < begin() + places(); }
    Entry& operator[](size_t i) const { return memory_.get()[i]; }

    // Gives back the whole blocks below place `to`, those before `from` excepted; returns the end of what is given
    // back.
    size_t discard(size_t from, size_t to) {
      const size_t first = from / kPlacesPerBlock * kPlacesPerBlock;
      const size_t last = to / kPlacesPerBlock * kPlacesPerBlock;
      if (last > first) memory_.discard(first, last);
      return last;
    }

   private:
    static constexpr size_t kNone = SIZE_MAX;
    PageMemory<Entry> memory_;
    size_t mask_ = kNone;
  };

  template <typename Match>
  Entry* findIn(const Table& table, uint64_t hash, Match match) const {
    for (size_t i = table.home(hash);; i = table.next(i)) {
      Entry& entry = table[i];
      if (traits_.isEmpty(entry)) return nullptr;
      if (match(entry)) return &entry;
    }
  }

  Entry& put(uint64_t hash, const Entry& entry) {
    size_t i = table_.home(hash);
    while (!traits_.isEmpty(table_[i])) i = table_.next(i);
    table_[i] = entry;
    return table_[i];
  }

  // Empties a place and moves back every later entry of the run that may stand there.
  void closeGap(Table& table, size_t gap) {
    table[gap] = Entry{};
    for (size_t i = table.next(gap); !traits_.isEmpty(table[i]); i = table.next(i)) {
      const size_t home = table.home(traits_.hashOf(table[i]));
      if (table.distance(home, i) < table.distance(gap, i)) continue;
      table[gap] = table[i];
      table[i] = Entry{};
      gap = i;
    }
  }

  void resize(size_t places) {
    while (step(UINT32_MAX)) {  // by kPlacesPerChange it is done already
    }
    before_ = std::exchange(table_, Table(places));
    moved_ = discarded_ = 0;
  }

  Traits traits_;
  Table table_;
  Table before_;  // while the size changes: where the entries were; places below moved_ are empty
  size_t moved_ = 0;
  size_t discarded_ = 0;  // of those, the places whose memory is given back
  size_t size_ = 0;
};

}  // namespace derplane
