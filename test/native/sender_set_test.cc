#include "native/core/sender_set.h"

#include <set>

#include "check.h"

using namespace derplane;

TEST("a new set knows nobody, one sender needs no table") {
  SenderSet set;
  CHECK_EQ(set.size(), 0u);
  CHECK(!set.contains(5));
  CHECK(!set.remove(5));
  set.note(5);
  set.note(5);
  CHECK_EQ(set.size(), 1u);
  CHECK(set.contains(5));
  CHECK(!set.contains(6));
  CHECK(set.remove(5));
  CHECK(!set.remove(5));
  CHECK_EQ(set.size(), 0u);
}

TEST("a sender is known once, however often it sends, and forgotten once") {
  SenderSet set;
  for (int round = 0; round < 3; ++round) {
    for (uint64_t s = 1; s <= 100; ++s) set.note(s * 0x100000001);
  }
  CHECK_EQ(set.size(), 100u);
  for (uint64_t s = 1; s <= 100; ++s) {
    CHECK(set.remove(s * 0x100000001));
    CHECK(!set.contains(s * 0x100000001));
  }
  CHECK_EQ(set.size(), 0u);
}

TEST("a sender that left and sends again is known again") {
  SenderSet set;
  set.note(1);
  set.note(2);
  CHECK(set.remove(2));
  set.note(2);
  CHECK(set.contains(2));
  CHECK(set.remove(1));
  CHECK(set.remove(2));
  set.note(2);
  CHECK(set.contains(2));
  CHECK_EQ(set.size(), 1u);
}

TEST("with as many senders as fit each is still known by itself") {
  SenderSet set;
  for (uint64_t s = 1; s <= SenderSet::kMaxSenders; ++s) set.note(s * 0x9e3779b97f4a7c15);
  for (uint64_t s = 1; s <= SenderSet::kMaxSenders; ++s)
    set.note(s * 0x9e3779b97f4a7c15);  // old acquaintances are no overflow
  CHECK_EQ(set.size(), SenderSet::kMaxSenders);
  CHECK(!set.contains(12345));
  CHECK(!set.remove(12345));
}

TEST("one sender too many is not noted, the known ones stay known") {
  SenderSet set;
  for (uint64_t s = 1; s <= SenderSet::kMaxSenders; ++s) CHECK(set.note(s) == SenderSet::Noted::kNew);
  CHECK(set.note(SenderSet::kMaxSenders + 1) == SenderSet::Noted::kTooMany);
  CHECK(set.note(1) == SenderSet::Noted::kKnown);
  CHECK(!set.contains(SenderSet::kMaxSenders + 1));
  CHECK_EQ(set.size(), SenderSet::kMaxSenders);
}

TEST("a set of many senders knows none by itself and estimates how many there ever were") {
  SenderSet set;
  for (uint64_t s = 1; s <= SenderSet::kMaxSenders; ++s) set.note(s * 0x9e3779b97f4a7c15);
  set.becomeMany(std::make_unique<ManySenders>());
  CHECK(!set.contains(0x9e3779b97f4a7c15));
  CHECK(!set.remove(0x9e3779b97f4a7c15));
  CHECK(set.note(7) == SenderSet::Noted::kKnown);
  CHECK(set.many() != nullptr);
  CHECK(set.size() > 1000);
}

TEST("a set whose senders left gives their memory back") {
  SenderSet set;
  for (uint64_t s = 1; s <= SenderSet::kMaxSenders; ++s) set.note(s);
  for (uint64_t s = 1; s <= SenderSet::kMaxSenders - 5; ++s) CHECK(set.remove(s));
  CHECK_EQ(set.size(), 5u);
  CHECK(set.places() <= 40);
  for (uint64_t s = SenderSet::kMaxSenders - 4; s <= SenderSet::kMaxSenders; ++s) CHECK(set.contains(s));
}

TEST("after any history a set knows the same senders as std::set") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    check::note("seed " + std::to_string(seed));
    check::Random random(seed);
    SenderSet set;
    std::set<uint64_t> model;
    const uint32_t universe = 1 + random.below(2000);
    // Half of the universes collide in their low bits, so that runs are long and wrap round the end of the table.
    const uint64_t stride = random.oneIn(2) ? 1 : uint64_t{1} << 40;
    for (uint32_t i = 0; i < 20'000; ++i) {
      const uint64_t sender = (1 + random.below(universe)) * stride + (stride == 1 ? 0 : random.below(3));
      switch (random.below(4)) {
        case 0:
        case 1:
          if (set.isLatest(sender)) {
            CHECK(model.contains(sender));
          } else {
            CHECK_EQ(set.note(sender) == SenderSet::Noted::kNew, model.insert(sender).second);
          }
          break;
        case 2:
          CHECK_EQ(set.remove(sender), model.erase(sender) == 1);
          break;
        default:
          CHECK_EQ(set.contains(sender), model.contains(sender));
      }
      if (model.size() > SenderSet::kMaxSenders - 1) break;
      CHECK_EQ(set.size(), model.size());
    }
    for (const uint64_t sender : model) CHECK(set.contains(sender));
  }
}
