// Rings between threads, with the wake-ups of ShardSlot: what a shard does, without sockets. A lost wake-up is a hang,
// which the poll's timeout turns into a failure.
#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "check.h"
#include "native/core/ring.h"
#include "native/io/relay_core.h"
#include "threads.h"

using namespace derplane;
using threads::sleepOn;

namespace {

class Ring {
 public:
  explicit Ring(size_t size = kMinRingBytes) : bytes_(size + kRingOverhead) {}
  RingMemory memory() { return RingMemory::in(bytes_.data(), bytes_.size()); }

 private:
  std::vector<uint8_t> bytes_;
};

uint64_t checksum(const uint8_t* bytes, uint32_t size, uint64_t number) {
  uint64_t sum = number;
  for (uint32_t i = 0; i < size; ++i) sum = sum * 31 + bytes[i];
  return sum;
}

struct Traffic {
  uint64_t records;
  uint32_t largest_body;
  uint32_t publish_every;  // records; a publish wakes the consumer if it sleeps
  uint32_t release_every;
};

struct Outcome {
  std::atomic<uint64_t> taken{0};
  std::atomic<uint64_t> spoilt{0};
  std::atomic<uint64_t> lost_wake_ups{0};
  std::atomic<uint64_t> waits{0};
};

void produce(RingMemory memory, const Traffic& traffic, ShardSlot& own, ShardSlot& consumer_slot, Outcome& outcome) {
  RingProducer producer(memory);
  check::Random random(1);
  for (uint64_t n = 0; n < traffic.records;) {
    const uint32_t body = random.below(traffic.largest_body + 1);
    const auto size = static_cast<uint32_t>(sizeof(RingRecord)) + body;
    RingRecord* record;
    while ((record = producer.reserve(size)) == nullptr) {
      if (!producer.waitForRoom(size)) continue;
      outcome.waits.fetch_add(1, std::memory_order_relaxed);
      consumer_slot.notifyRing(0);
      while (own.takeRoomBits() == 0) {
        if (!sleepOn(own)) {
          outcome.lost_wake_ups.fetch_add(1);
          return;
        }
      }
    }
    producer.nobodyWaits();
    auto* bytes = reinterpret_cast<uint8_t*>(record + 1);
    for (uint32_t i = 0; i < body; i += 16) bytes[i] = static_cast<uint8_t>(random.next());
    record->kind = RecordKind::kPacket;
    record->client_slot = static_cast<uint32_t>(n);
    record->client_generation = body;
    record->source_hash = checksum(bytes, body, n);
    producer.commit();
    ++n;
    if (n % traffic.publish_every == 0 || n == traffic.records) {
      if (producer.publish()) consumer_slot.notifyRing(0);
    }
  }
}

void consume(RingMemory memory, const Traffic& traffic, ShardSlot& own, ShardSlot& producer_slot, Outcome& outcome) {
  RingConsumer consumer(memory);
  const auto release = [&] { consumer.release([&] { producer_slot.notifyRoom(0); }); };
  uint64_t n = 0;
  while (n < traffic.records) {
    while (own.takeRingBits() == 0) {
      if (!sleepOn(own)) {
        outcome.lost_wake_ups.fetch_add(1);
        return;
      }
    }
    while (RingRecord* record = consumer.next()) {
      auto* bytes = reinterpret_cast<uint8_t*>(record + 1);
      const bool intact = record->client_slot == static_cast<uint32_t>(n) &&
                          record->source_hash == checksum(bytes, record->client_generation, n);
      if (!intact) outcome.spoilt.fetch_add(1);
      if (++n % traffic.release_every == 0) release();
    }
    release();
  }
  outcome.taken.store(n);
}

void run(const Traffic& traffic) {
  Ring ring;
  ShardSlot producer_slot, consumer_slot;
  Outcome outcome;
  std::thread producer([&] { produce(ring.memory(), traffic, producer_slot, consumer_slot, outcome); });
  std::thread consumer([&] { consume(ring.memory(), traffic, consumer_slot, producer_slot, outcome); });
  producer.join();
  consumer.join();
  CHECK_EQ(outcome.lost_wake_ups.load(), 0u);
  CHECK_EQ(outcome.taken.load(), traffic.records);
  CHECK_EQ(outcome.spoilt.load(), 0u);
}

}  // namespace

TEST("a million records cross threads in order and intact, however often both sides sleep") {
  run({.records = 400'000, .largest_body = 100, .publish_every = 1, .release_every = 1});
  run({.records = 400'000, .largest_body = 200, .publish_every = 64, .release_every = 1024});
  run({.records = 200'000, .largest_body = 1'500, .publish_every = 16, .release_every = 1'000'000});
}

TEST("records of every size up to the largest cross a ring that is mostly full") {
  run({.records = 3'000, .largest_body = kMaxFrameSize, .publish_every = 3, .release_every = 2});
}

TEST("two shards that answer each other one record at a time lose no wake-up") {
  constexpr uint32_t kRounds = 50'000;
  Ring there, back;
  ShardSlot slots[2];
  std::atomic<uint32_t> lost{0};
  const auto play = [&](uint32_t self, RingMemory in, RingMemory out, bool begins) {
    RingProducer producer(out);
    RingConsumer consumer(in);
    const auto send = [&] {
      producer.reserve(sizeof(RingRecord))->kind = RecordKind::kGone;
      producer.commit();
      producer.publish();
      slots[1 - self].notifyRing(self);
    };
    if (begins) send();
    for (uint32_t round = 0; round < kRounds; ++round) {
      while (slots[self].takeRingBits() == 0) {
        if (!sleepOn(slots[self])) {
          lost.fetch_add(1);
          return;
        }
      }
      CHECK(consumer.next() != nullptr);
      CHECK(consumer.next() == nullptr);
      consumer.release([] {});
      if (round + 1 < kRounds || !begins) send();
    }
  };
  std::thread a([&] { play(0, back.memory(), there.memory(), true); });
  std::thread b([&] { play(1, there.memory(), back.memory(), false); });
  a.join();
  b.join();
  CHECK_EQ(lost.load(), 0u);
}

TEST("mail from many threads arrives once each and in each thread's order") {
  constexpr uint32_t kThreads = 3, kMails = 20'000;
  ShardSlot slot;
  std::vector<std::thread> posters;
  for (uint32_t t = 0; t < kThreads; ++t) {
    posters.emplace_back([&slot, t] {
      for (uint32_t n = 0; n < kMails; ++n) slot.post({.kind = Mail::Kind::kCheck, .ticket = t * kMails + n});
    });
  }
  uint32_t next[kThreads] = {};
  uint32_t total = 0;
  while (total < kThreads * kMails) {
    const std::vector<Mail> mails = slot.takeMail();
    for (const Mail& mail : mails) {
      CHECK_EQ(mail.ticket % kMails, next[mail.ticket / kMails]++);
      ++total;
    }
    if (mails.empty() && !sleepOn(slot)) {
      check::fail(__FILE__, __LINE__, "a wake-up for mail was lost");
      break;
    }
  }
  for (std::thread& poster : posters) poster.join();
  CHECK_EQ(total, kThreads * kMails);
  CHECK(slot.takeMail().empty());
}
