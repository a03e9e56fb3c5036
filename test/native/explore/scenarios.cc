// What the explorer runs: the two wake-ups between shards, by the real rings, slots and routers.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "../check.h"
#include "../relay_model.h"
#include "explore.h"

using namespace derplane;
using explore::Case;
using frames::Bytes;
using model::Relay;
using model::Session;

namespace {

bool isWoken(const ShardSlot& slot) {
  pollfd p{.fd = slot.eventFd(), .events = POLLIN, .revents = 0};
  return ::poll(&p, 1, 0) == 1;
}

// Sleeps as a shard does; false when the run is over.
bool sleepOn(ShardSlot& slot) {
  if (!slot.trySleep()) return !explore::isOver();
  if (!explore::blockUntil([&] { return isWoken(slot); })) return false;
  uint64_t count;
  if (::read(slot.eventFd(), &count, sizeof count) < 0) explore::fail("a thread woke up that nobody woke");
  slot.awake();
  return true;
}

// --- a ring
// ------------------------------------------------------------------------------------------------------------

// One shard fills a ring of four records, another one empties it.
class RingCase final : public Case {
 public:
  static constexpr uint32_t kRecords = 6;

  RingCase() {
    threads = {[this] { produce(); }, [this] { consume(); }};
  }

  std::vector<std::pair<const void*, std::string>> names() override {
    return {{&memory_.shared.head, "head"},
            {&memory_.shared.tail, "tail"},
            {&memory_.shared.told, "told"},
            {&memory_.shared.waits, "waits"}};
  }

  std::string verdict() override {
    if (taken_ == kRecords) return "";
    return "lost wake-up: " + std::to_string(taken_) + " of " + std::to_string(kRecords) + " records arrived";
  }

 private:
  RingMemory ring() { return {&memory_.shared, memory_.data, sizeof memory_.data}; }

  void produce() {
    RingProducer producer(ring());
    for (uint32_t n = 0; n < kRecords; ++n) {
      RingRecord* record;
      while ((record = producer.reserve(sizeof(RingRecord))) == nullptr) {
        if (!producer.waitForRoom(sizeof(RingRecord))) continue;
        consumer_slot_.notifyRing(0);
        while (producer_slot_.takeRoomBits() == 0) {
          checkLost(producer);
          if (!sleepOn(producer_slot_)) return;
        }
      }
      if (producer.waits()) producer.nobodyWaits();
      explore::writes(record);
      record->kind = RecordKind::kGone;
      record->client_slot = n;
      producer.commit();
      if (n % 2 == 1 && producer.publish()) consumer_slot_.notifyRing(0);
    }
  }

  // As Shard::lostRoomWakes.
  void checkLost(const RingProducer& producer) {
    const bool made = producer.roomWasMade();
    if (made && producer_slot_.roomBits() == 0) explore::fail("lost wake-up: room was made, and nobody told");
  }

  void consume() {
    RingConsumer consumer(ring());
    while (!explore::isOver()) {
      while (consumer_slot_.takeRingBits() == 0) {
        if (!sleepOn(consumer_slot_)) return;
      }
      while (RingRecord* record = consumer.next()) {
        explore::reads(record);
        if (record->client_slot != taken_++) explore::fail("records are out of order");
        if (taken_ % 2 == 0) consumer.release([this] { producer_slot_.notifyRoom(0); });
      }
      consumer.release([this] { producer_slot_.notifyRoom(0); });
    }
  }

  struct {
    RingShared shared;
    alignas(8) uint8_t data[4 * sizeof(RingRecord)];
  } memory_ = {};
  ShardSlot producer_slot_, consumer_slot_;
  uint32_t taken_ = 0;
};

// --- routers
// -----------------------------------------------------------------------------------------------------------

constexpr uint32_t kRingBytes = 256;
// A record of 128 bytes: two fill the ring.
constexpr uint32_t kPacketSize = 128 - sizeof(RingRecord) - kPacketFrameFixed;

// Two shards. Clients of the first send more than the ring takes, and a key leaves while they wait.
class RouterCase final : public Case {
 public:
  // `leaves`: the client that waits first ends its connection.
  explicit RouterCase(bool leaves) : leaves_(leaves) {
    receiver_ = &relay_.connect(relay_.keyOn(1, 0));
    leaver_ = &relay_.connect(relay_.keyOn(0, 0));
    for (uint32_t i = 0; i < 2; ++i) senders_[i] = &relay_.connect(relay_.keyOn(0, 1 + i));
    relay_.settle();
    receiver_->received();
    for (uint32_t shard = 0; shard < 2; ++shard) {  // asleep, as after settle() a shard is
      uint64_t count;
      [[maybe_unused]] const ssize_t n = ::read(relay_.slot(shard).eventFd(), &count, sizeof count);
    }
    threads = {[this] { send(); }, [this] { receive(); }};
  }

  std::string verdict() override {
    const std::vector<Bytes> got = receiver_->received();
    const auto packets = std::count_if(
        got.begin(), got.end(), [](const Bytes& f) { return f[0] == static_cast<uint8_t>(FrameType::kRecvPacket); });
    // What the one that left had sent may be lost, what the other one sent may not.
    const bool arrived = leaves_ ? packets >= 1 : packets == 4;
    for (const Session* sender : senders_) {
      if (!sender->closed() && sender->client->blocked_on != kNotBlocked) {
        return "lost wake-up: a client waits for a ring that is empty";
      }
    }
    if (!arrived) return "lost wake-up: " + std::to_string(packets) + " packets arrived";
    return relay_.violation();
  }

 private:
  void send() {
    const Bytes packet = frames::sendPacket(receiver_->key, Bytes(kPacketSize, 0x33));
    for (uint32_t n = 0; n < 3; ++n) relay_.send(*senders_[0], packet);
    relay_.send(*senders_[1], packet);
    relay_.turn(0);
    relay_.disconnect(*leaver_);
    if (leaves_) relay_.disconnect(*senders_[0]);
    work(0);
  }

  void receive() { work(1); }

  void work(uint32_t shard) {
    while (!explore::isOver()) {
      if (!relay_.turn(shard) && !sleepOn(relay_.slot(shard))) return;
      if (!relay_.violation().empty()) explore::fail("lost wake-up, as check() says: " + relay_.violation());
    }
  }

  const bool leaves_;
  Relay relay_{{.shards = 2, .ring_bytes = kRingBytes}};
  Session* receiver_;
  Session* leaver_;
  Session* senders_[2];
};

// --- a slot
// ------------------------------------------------------------------------------------------------------------

// Two threads want something of a shard that is about to sleep.
class SlotCase final : public Case {
 public:
  SlotCase() {
    threads = {[this] { shard(); },
               [this] {
                 if (explore::isOver()) return;
                 slot_.notifyRing(1);
                 slot_.notifyRoom(1);
               },
               [this] {
                 if (explore::isOver()) return;
                 slot_.post({.kind = Mail::Kind::kCheck, .ticket = 1});
                 slot_.post({.kind = Mail::Kind::kCheck, .ticket = 2});
               }};
  }

  std::string verdict() override {
    if (rings_ == 2 && rooms_ == 2 && mails_ == 2) return "";
    return "lost wake-up: " + std::to_string(mails_) + " of 2 mails came, ring bits " + std::to_string(rings_) +
           ", room bits " + std::to_string(rooms_);
  }

 private:
  void shard() {
    while (!explore::isOver()) {
      const uint64_t rings = slot_.takeRingBits(), rooms = slot_.takeRoomBits();
      const std::vector<Mail> mail = slot_.takeMail();
      rings_ |= rings;
      rooms_ |= rooms;
      mails_ += mail.size();
      if (rings == 0 && rooms == 0 && mail.empty() && !sleepOn(slot_)) return;
    }
  }

  ShardSlot slot_;
  uint64_t rings_ = 0, rooms_ = 0;
  size_t mails_ = 0;
};

// Goes through all runs. What fails ends the program at once: a broken protocol fails everywhere.
void expectNoFault(uint32_t deviations, std::function<std::unique_ptr<Case>()> make) {
  constexpr uint64_t kMaxRuns = 5'000'000;
  const explore::Result result = explore::explore({deviations, std::move(make)}, kMaxRuns);
  std::printf("  %llu runs with up to %u deviations\n", static_cast<unsigned long long>(result.runs), deviations);
  if (!result.failure.empty()) std::printf("%s\n", result.failure.c_str());
  CHECK_EQ(result.failure.empty() ? "no fault" : "a fault, see above", std::string("no fault"));
  CHECK(result.complete || !result.failure.empty());
}

}  // namespace

TEST("a ring of four records loses no wake-up and shows no half-written record") {
  expectNoFault(3, [] { return std::make_unique<RingCase>(); });
}

TEST("a shard that is about to sleep hears of a ring, of room and of mail") {
  expectNoFault(3, [] { return std::make_unique<SlotCase>(); });
}

TEST("clients and a notice that wait for one ring all go on") {
  expectNoFault(2, [] { return std::make_unique<RouterCase>(false); });
}

TEST("clients go on after the first that waits has left") {
  expectNoFault(2, [] { return std::make_unique<RouterCase>(true); });
}
