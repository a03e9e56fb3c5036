// Who is told that a key left: exactly those who received from it, at a cost that follows their number.
#include "native/core/departures.h"

#include <map>
#include <memory>
#include <set>
#include <string>

#include "check.h"
#include "frames.h"
#include "relay_model.h"

using namespace derplane;
using frames::Bytes;
using model::Relay;
using model::Session;

namespace {

// Clients in slots, and who was told of which sender.
struct Fixture {
  Fixture() : counters(values), departures(slots, counters) {}
  ~Fixture() {
    for (uint32_t slot = 0; slot < slots.size(); ++slot) leave(slot);
    settle();
    CHECK_EQ(departures.pairs(), 0u);
  }

  uint32_t enter() {
    uint32_t slot = 0;
    while (slot < slots.size() && slots[slot] != nullptr) ++slot;
    if (slot == slots.size()) slots.push_back(nullptr);
    slots[slot] = new Client;
    slots[slot]->slot = slot;
    return slot;
  }
  void leave(uint32_t slot) {
    Client* client = slots[slot];
    if (client == nullptr) return;
    slots[slot] = nullptr;
    departures.receiverLeft(*client);
    delete client;
  }
  void gone(uint32_t sender) { departures.keyLeft(frames::keyOf(sender), sender); }
  bool step(uint32_t budget) {
    return departures.step(budget, [this](Client& client, const Key& key) {
      ++told[{client.slot, frames::numberOf(key.bytes)}];
      ++count;
    });
  }
  void settle() {
    while (step(1000)) {
    }
    const char* wrong = departures.check();
    CHECK_EQ(std::string(wrong == nullptr ? "" : wrong), "");
  }

  int64_t values[kCounterCount] = {};
  Counters counters;
  std::vector<Client*> slots;
  Departures departures;
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> told;
  uint32_t count = 0;
};

}  // namespace

TEST("a key that never sent anything costs nothing, however often it leaves") {
  Fixture f;
  f.departures.heard(*f.slots[f.enter()], 1);
  for (uint32_t n = 2; n < 100'000; ++n) f.gone(n);
  CHECK_EQ(f.departures.waiting(), 0u);
  f.settle();
  CHECK_EQ(f.count, 0u);
}

TEST("a departure visits its receivers, not all clients") {
  Fixture f;
  for (uint32_t n = 0; n < 10'000; ++n) f.enter();
  for (const uint32_t slot : {5u, 9000u, 9999u}) f.departures.heard(*f.slots[slot], 1);
  f.gone(1);
  CHECK(f.step(3));
  CHECK(f.told == (std::map<std::pair<uint32_t, uint32_t>, uint32_t>{{{5, 1}, 1}, {{9000, 1}, 1}, {{9999, 1}, 1}}));
  f.settle();
  CHECK_EQ(f.count, 3u);
}

TEST("many receivers are told in bounded steps, each once") {
  Fixture f;
  for (uint32_t n = 0; n < 5000; ++n) f.departures.heard(*f.slots[f.enter()], 1);
  f.gone(1);
  for (uint32_t before = 0; f.step(100); before = f.count) CHECK(f.count <= before + 100);
  CHECK_EQ(f.count, 5000u);
  CHECK_EQ(f.told.size(), 5000u);
}

TEST("a key that leaves, comes back and leaves again before anybody was told is told of once") {
  Fixture f;
  const uint32_t a = f.enter(), b = f.enter();
  f.departures.heard(*f.slots[a], 1);
  f.gone(1);
  f.departures.heard(*f.slots[b], 1);
  for (int n = 0; n < 1000; ++n) f.gone(1);
  CHECK_EQ(f.departures.waiting(), 1u);
  f.settle();
  CHECK_EQ(f.count, 2u);
}

TEST("who hears of a key only after it came back is not told of the departure before") {
  Fixture f;
  const uint32_t a = f.enter(), b = f.enter();
  f.departures.heard(*f.slots[a], 1);
  f.gone(1);
  f.departures.heard(*f.slots[b], 1);
  f.settle();
  CHECK((f.told == std::map<std::pair<uint32_t, uint32_t>, uint32_t>{{{a, 1}, 1}}));
  f.gone(1);
  f.settle();
  CHECK_EQ((f.told[{b, 1}]), 1u);
}

TEST("a client with more than 4,096 senders hears of every key that leaves, until it leaves itself") {
  Fixture f;
  const uint32_t busy = f.enter(), other = f.enter();
  for (uint32_t n = 1; n <= SenderSet::kMaxSenders + 1; ++n) f.departures.heard(*f.slots[busy], n);
  CHECK_EQ(f.departures.pairs(), 0u);
  f.departures.heard(*f.slots[other], 7);
  f.gone(7);
  f.gone(1'000'000);
  f.settle();
  CHECK_EQ((f.told[{busy, 7}]), 1u);
  CHECK_EQ((f.told[{other, 7}]), 1u);
  CHECK_EQ((f.told[{busy, 1'000'000}]), 1u);
  f.gone(8);
  f.leave(busy);
  f.settle();
  CHECK_EQ(f.count, 3u);
  for (uint32_t n = 0; n < 1000; ++n) f.gone(n + 10);
  CHECK_EQ(f.departures.waiting(), 0u);
}

TEST("keys that wait to be told to clients with many senders are bounded") {
  Fixture f;
  const uint32_t busy = f.enter();
  for (uint32_t n = 1; n <= SenderSet::kMaxSenders + 1; ++n) f.departures.heard(*f.slots[busy], n);
  for (uint32_t n = 0; n < 2 * Departures::kMaxWaiting; ++n) f.gone(n);
  CHECK_EQ(f.departures.waiting(), Departures::kMaxWaiting);
}

TEST("a sender whose receivers come and go keeps no memory of them") {
  Fixture f;
  const uint32_t stays = f.enter();
  f.departures.heard(*f.slots[stays], 1);
  for (uint32_t n = 0; n < 10'000; ++n) {
    const uint32_t comes = f.enter();
    f.departures.heard(*f.slots[comes], 1);
    f.leave(comes);
    f.step(1000);
  }
  CHECK(f.departures.listed(1) <= 8);
  f.gone(1);
  f.settle();
  CHECK_EQ(f.count, 1u);
}

TEST("the list of a sender whose receivers left becomes short in bounded steps") {
  Fixture f;
  for (uint32_t n = 0; n < 100'000; ++n) f.departures.heard(*f.slots[f.enter()], 1);
  uint32_t slot = 0;
  for (; f.departures.purging() == 0; f.step(1000)) f.leave(slot++);
  CHECK(slot > 40'000 && slot < 60'000);
  uint32_t steps = 1;
  for (; f.departures.purging() > 0; ++steps) f.step(1000);
  CHECK(steps > 90);
  CHECK_EQ(f.departures.listed(1), 100'000 - slot);
  f.gone(1);
  f.settle();
  CHECK_EQ(f.count, 100'000 - slot);
}

TEST("a key that leaves while its list becomes shorter is told to all who heard of it") {
  Fixture f;
  for (uint32_t n = 0; n < 10'000; ++n) f.departures.heard(*f.slots[f.enter()], 1);
  uint32_t slot = 0;
  for (; f.departures.purging() == 0; f.step(1000)) f.leave(slot++);
  f.step(1000);
  CHECK_EQ(f.departures.purging(), 1u);
  f.gone(1);
  f.settle();
  CHECK_EQ(f.count, 10'000 - slot);
  CHECK_EQ(f.departures.purging(), 0u);
}

TEST("a client that leaves with thousands of senders is forgotten in bounded steps") {
  Fixture f;
  const uint32_t leaves = f.enter(), stays = f.enter();
  for (uint32_t n = 1; n <= SenderSet::kMaxSenders; ++n) f.departures.heard(*f.slots[leaves], n);
  f.departures.heard(*f.slots[stays], 7);
  f.leave(leaves);
  CHECK(f.departures.pairs() > SenderSet::kMaxSenders / 2);
  CHECK(f.departures.check() == nullptr);
  f.step(1000);
  CHECK(f.departures.check() == nullptr);
  f.settle();
  CHECK_EQ(f.departures.pairs(), 1u);
  f.gone(7);
  f.settle();
  CHECK_EQ(f.count, 1u);
}

TEST("a key that comes and goes while its receivers are told keeps no other key waiting") {
  Fixture f;
  for (uint32_t n = 0; n < 100; ++n) f.departures.heard(*f.slots[f.enter()], 1);
  const uint32_t other = f.enter();
  f.departures.heard(*f.slots[other], 2);
  f.gone(1);
  f.gone(2);
  for (uint32_t n = 0; n < 50; ++n) {
    f.step(10);
    for (uint32_t slot = 0; slot < 100; ++slot) f.departures.heard(*f.slots[slot], 1);
    f.gone(1);
  }
  CHECK_EQ((f.told[{other, 2}]), 1u);
  CHECK(f.departures.listed(1) <= 300);
  f.settle();
  f.told.clear();
  f.gone(1);
  f.settle();
  CHECK_EQ(f.told.size(), 0u);
}

TEST("after any history those are told, once, who received since they were told last") {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    check::note("seed " + std::to_string(seed));
    check::Random random(seed);
    Fixture f;
    std::map<uint32_t, std::set<uint32_t>> heard;  // receivers of each sender
    for (uint32_t round = 0; round < 300; ++round) {
      for (uint32_t n = random.below(30); n > 0; --n) {
        const uint32_t what = random.below(10);
        if (what < 2 || f.slots.empty()) {
          f.enter();
          continue;
        }
        const uint32_t slot = random.below(static_cast<uint32_t>(f.slots.size()));
        if (f.slots[slot] == nullptr) continue;
        if (what < 3) {
          f.leave(slot);
          for (auto& [sender, receivers] : heard) receivers.erase(slot);
        } else {
          const uint32_t sender = 1 + random.below(20);
          f.departures.heard(*f.slots[slot], sender);
          heard[sender].insert(slot);
        }
      }
      const uint32_t sender = 1 + random.below(20);
      f.told.clear();
      f.gone(sender);
      f.settle();
      std::map<std::pair<uint32_t, uint32_t>, uint32_t> expected;
      for (const uint32_t slot : heard[sender]) expected[{slot, sender}] = 1;
      CHECK(f.told == expected);
      heard.erase(sender);
    }
    if (check::failures() > 0) return;
  }
}

TEST("whatever comes, sends and leaves while others are told, the lists stay true") {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    check::note("seed " + std::to_string(seed));
    check::Random random(seed);
    Fixture f;
    for (uint32_t step = 0; step < 5000; ++step) {
      const uint32_t what = random.below(20);
      const uint32_t slot = f.slots.empty() ? 0 : random.below(static_cast<uint32_t>(f.slots.size()));
      if (what < 2 || f.slots.empty()) {
        f.enter();
      } else if (what < 4) {
        f.leave(slot);
      } else if (what < 6) {
        f.gone(1 + random.below(30));
      } else if (what < 9) {
        f.step(random.below(5));
      } else if (f.slots[slot] != nullptr) {
        f.departures.heard(*f.slots[slot], 1 + random.below(30));
      }
      if (step % 100 == 0) CHECK(f.departures.check() == nullptr);
    }
    if (check::failures() > 0) return;
  }
}

TEST("the receivers of a key hear once that it left, on every shard, and again when it was back") {
  for (const uint32_t shards : {1u, 2u, 3u}) {
    Relay relay({.shards = shards});
    std::vector<Session*> receivers;
    for (uint32_t n = 0; n < 50; ++n) receivers.push_back(&relay.connect(frames::keyOf(100 + n)));
    for (int round = 0; round < 2; ++round) {
      Session& sender = relay.connect(frames::keyOf(1));
      for (uint32_t n = 0; n < 50; n += 2) relay.send(sender, frames::sendPacket(receivers[n]->key, Bytes(10)));
      relay.settle();
      for (Session* receiver : receivers) receiver->received();
      relay.disconnect(sender);
      relay.settle();
      for (uint32_t n = 0; n < 50; ++n) {
        const std::vector<Bytes> got = receivers[n]->received();
        CHECK_EQ(got.size(), n % 2 == 0 ? 1u : 0u);
        if (n % 2 == 0) CHECK(got[0] == frames::peerGone(sender.key, PeerGoneReason::kDisconnected));
      }
    }
    CHECK_EQ(relay.violation(), "");
  }
}
