#include "native/core/ring.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "check.h"

using namespace derplane;

namespace {

// Zeroed memory of a ring whose base is `offset` bytes past a cache line, as a SharedArrayBuffer's may be.
class Memory {
 public:
  explicit Memory(size_t data = kMinRingBytes, size_t offset = 0) : bytes_(data + kRingOverhead + 2 * kRingAlign) {
    auto at = reinterpret_cast<uintptr_t>(bytes_.data());
    at = (at + kRingAlign - 1) / kRingAlign * kRingAlign + offset;
    memory_ = RingMemory::in(reinterpret_cast<uint8_t*>(at), data + kRingOverhead);
  }
  RingMemory& operator*() { return memory_; }
  RingMemory* operator->() { return &memory_; }

 private:
  std::vector<uint8_t> bytes_;
  RingMemory memory_;
};

uint8_t* bodyOf(RingRecord* record) { return reinterpret_cast<uint8_t*>(record + 1); }

uint32_t sizeOf(uint32_t body) { return static_cast<uint32_t>(sizeof(RingRecord)) + body; }

// Writes a record whose every body byte follows from its number. False when there is no room.
bool put(RingProducer& producer, uint32_t number, uint32_t body) {
  RingRecord* record = producer.reserve(sizeOf(body));
  if (record == nullptr) return false;
  record->kind = RecordKind::kPacket;
  record->client_slot = number;
  record->client_generation = body;
  std::memset(bodyOf(record), static_cast<int>(number * 31 + 7) & 0xff, body);
  producer.commit();
  return true;
}

// Whether the release wakes the producer.
bool releaseWakes(RingConsumer& consumer) {
  bool woken = false;
  consumer.release([&] { woken = true; });
  return woken;
}

bool isIntact(RingRecord* record, uint32_t number, uint32_t body) {
  if (record->client_slot != number || record->client_generation != body) return false;
  if (record->size != ((sizeOf(body) + 7) & ~7u)) return false;
  const auto want = static_cast<uint8_t>(number * 31 + 7);
  for (uint32_t i = 0; i < body; ++i) {
    if (bodyOf(record)[i] != want) return false;
  }
  return true;
}

}  // namespace

TEST("memory that starts at 32 or at any other odd place is rounded up to a cache line") {
  for (const size_t offset : {0U, 8U, 32U, 56U}) {
    Memory memory(kMinRingBytes, offset);
    CHECK_EQ(reinterpret_cast<uintptr_t>(memory->shared) % kRingAlign, 0u);
    CHECK_EQ(reinterpret_cast<uintptr_t>(memory->data) % kRingAlign, 0u);
    CHECK_EQ(memory->capacity, kMinRingBytes);
    RingProducer producer(*memory);
    RingConsumer consumer(*memory);
    CHECK(put(producer, 1, 100) && producer.publish());
    CHECK(isIntact(consumer.next(), 1, 100));
  }
}

TEST("too little memory is no ring, and the capacity is a power of two") {
  std::vector<uint8_t> bytes(kMinRingBytes);
  CHECK(RingMemory::in(bytes.data(), bytes.size()).shared == nullptr);
  Memory memory((1 << 20) - 4096);
  CHECK_EQ(memory->capacity, 1u << 19);
}

TEST("nothing is visible before publish, everything after it, in order") {
  Memory memory;
  RingProducer producer(*memory);
  RingConsumer consumer(*memory);
  CHECK(consumer.empty());
  CHECK(!producer.publish());
  for (uint32_t n = 0; n < 5; ++n) CHECK(put(producer, n, n * 3));
  CHECK(consumer.next() == nullptr);
  CHECK(consumer.empty());
  CHECK(producer.publish());
  CHECK(!producer.publish());
  CHECK(!consumer.empty());
  for (uint32_t n = 0; n < 5; ++n) CHECK(isIntact(consumer.next(), n, n * 3));
  CHECK(consumer.next() == nullptr);
  CHECK(consumer.empty());
}

TEST("a reservation without commit leaves no trace") {
  Memory memory;
  RingProducer producer(*memory);
  RingConsumer consumer(*memory);
  CHECK(producer.reserve(sizeOf(1000)) != nullptr);
  CHECK(put(producer, 1, 10));
  CHECK(producer.reserve(sizeOf(50)) != nullptr);
  producer.publish();
  CHECK(isIntact(consumer.next(), 1, 10));
  CHECK(consumer.next() == nullptr);
}

TEST("records wrap at every offset of the ring and stay contiguous, aligned and intact") {
  Memory memory;
  RingProducer producer(*memory);
  RingConsumer consumer(*memory);
  uint32_t number = 0;
  // The last record grows by 8 bytes a round, so the wrap falls on every place that it can have.
  for (uint32_t round = 0; round < 1200; ++round) {
    uint32_t first = number;
    for (const uint32_t body : {8u, 65'000u, 65'000u, round * 8}) {
      CHECK(put(producer, number++, body));
    }
    producer.publish();
    for (const uint32_t body : {8u, 65'000u, 65'000u, round * 8}) {
      RingRecord* record = consumer.next();
      CHECK(record != nullptr && isIntact(record, first++, body));
      if (record == nullptr) return;
      CHECK_EQ(reinterpret_cast<uintptr_t>(record) % 8, 0u);
      CHECK(reinterpret_cast<uint8_t*>(record) >= memory->data);
      CHECK(reinterpret_cast<uint8_t*>(record) + record->size <= memory->data + memory->capacity);
    }
    CHECK(consumer.next() == nullptr);
    releaseWakes(consumer);
  }
}

TEST("three of the largest records fit however the wrap falls") {
  for (uint32_t start = 0; start < kMinRingBytes; start += 1000) {
    Memory memory;
    RingProducer producer(*memory);
    RingConsumer consumer(*memory);
    for (uint32_t left = start / 8 * 8; left >= sizeOf(0);) {
      const uint32_t body = std::min<uint32_t>(left - sizeOf(0), 65'000) & ~7u;
      put(producer, 0, body);
      left -= sizeOf(body);
      producer.publish();
      while (consumer.next() != nullptr) {
      }
      releaseWakes(consumer);
    }
    uint32_t fits = 0;
    while (put(producer, fits, kMaxRingRecord - sizeOf(0))) ++fits;
    CHECK(fits >= 2);
    // Whatever is in the ring, one of the largest fits when it is empty again.
    producer.publish();
    uint32_t seen = 0;
    while (consumer.next() != nullptr) ++seen;
    CHECK_EQ(seen, fits);
    releaseWakes(consumer);
    CHECK(put(producer, 9, kMaxRingRecord - sizeOf(0)));
  }
}

TEST("a full ring takes nothing, gives nothing away, and takes again after release") {
  Memory memory;
  RingProducer producer(*memory);
  RingConsumer consumer(*memory);
  uint32_t count = 0;
  while (put(producer, count, 200)) ++count;
  CHECK_EQ(count, kMinRingBytes / sizeOf(200));
  producer.publish();
  for (uint32_t n = 0; n < count / 2; ++n) CHECK(isIntact(consumer.next(), n, 200));
  CHECK(!put(producer, count, 200));  // read, but not released: a queue may still point there
  CHECK(!releaseWakes(consumer));     // nobody waited
  CHECK(put(producer, count, 200));
  producer.publish();
  for (uint32_t n = count / 2; n <= count; ++n) CHECK(isIntact(consumer.next(), n, 200));
  CHECK(consumer.next() == nullptr);
}

TEST("a producer that waits is woken by every release until it says that nobody waits") {
  Memory memory;
  RingProducer producer(*memory);
  RingConsumer consumer(*memory);
  uint32_t count = 0;
  while (put(producer, count, 200)) ++count;
  CHECK(producer.waitForRoom(sizeOf(200)));  // publishes too, else both would sleep
  CHECK(producer.waits());
  CHECK(!releaseWakes(consumer));  // nothing was read: there is no room
  CHECK(isIntact(consumer.next(), 0, 200));
  CHECK(releaseWakes(consumer));
  CHECK(put(producer, 0, 200));
  CHECK(consumer.next() != nullptr);
  CHECK(releaseWakes(consumer));
  producer.nobodyWaits();
  CHECK(!producer.waits());
  CHECK(consumer.next() != nullptr);
  CHECK(!releaseWakes(consumer));
}

TEST("one that finds room after all leaves the flag to the others that wait") {
  Memory memory;
  RingProducer producer(*memory);
  RingConsumer consumer(*memory);
  while (put(producer, 0, 200)) {
  }
  CHECK(producer.waitForRoom(sizeOf(60'000)));
  CHECK(consumer.next() != nullptr);
  // A release that has moved its tail, and not looked for who waits yet, must find the flag: another waiter finds room
  // meanwhile.
  memory->shared->tail.store(sizeOf(200), std::memory_order_release);
  CHECK(!producer.waitForRoom(sizeOf(0)));
  CHECK(put(producer, 1, 0));
  CHECK(releaseWakes(consumer));
}

TEST("the producer sees that room was made for what waits, and only after the wake-up") {
  Memory memory;
  RingProducer producer(*memory);
  RingConsumer consumer(*memory);
  CHECK(!producer.roomWasMade());  // nobody waits
  while (put(producer, 0, 200)) {
  }
  CHECK(producer.waitForRoom(sizeOf(1'000)));
  CHECK(!producer.roomWasMade());
  const auto take = [&](uint32_t records) {
    for (uint32_t n = 0; n < records; ++n) CHECK(consumer.next() != nullptr);
    consumer.release([&] { CHECK(!producer.roomWasMade()); });
  };
  take(1);
  CHECK(!producer.roomWasMade());  // too little
  take(5);
  CHECK(producer.roomWasMade());
  CHECK(put(producer, 0, 1'000));
  CHECK(producer.waitForRoom(sizeOf(1'000)));
  CHECK(!producer.roomWasMade());
  producer.nobodyWaits();
  take(5);
  CHECK(!producer.roomWasMade());
}

TEST("a producer does not wait when room came meanwhile") {
  Memory memory;
  RingProducer producer(*memory);
  RingConsumer consumer(*memory);
  while (put(producer, 0, 200)) {
  }
  producer.publish();
  while (consumer.next() != nullptr) {
  }
  releaseWakes(consumer);
  CHECK(!producer.waitForRoom(sizeOf(200)));
  CHECK(put(producer, 1, 200));
  producer.publish();
  CHECK(isIntact(consumer.next(), 1, 200));
}

TEST("halves made anew go on where the ring stands") {
  Memory memory;
  {
    RingProducer producer(*memory);
    RingConsumer consumer(*memory);
    put(producer, 1, 100);
    producer.publish();
    consumer.next();
    releaseWakes(consumer);
    put(producer, 2, 100);
    producer.publish();
  }
  RingProducer producer(*memory);
  RingConsumer consumer(*memory);
  put(producer, 3, 100);
  producer.publish();
  CHECK(isIntact(consumer.next(), 2, 100));
  CHECK(isIntact(consumer.next(), 3, 100));
}
