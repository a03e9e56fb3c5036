// Every sentence of the protocol about several connections of one key.
#include "native/core/duplicates.h"

#include "check.h"

using namespace derplane;

namespace {

struct Set {
  explicit Set(DuplicatePolicy policy) : duplicates(policy, counters) {}
  int64_t values[kCounterCount] = {};
  Counters counters{values};
  Duplicates duplicates;
  Peer peer;

  void join(Client& c) { duplicates.join(peer, c); }
  void leave(Client& c) { duplicates.leave(peer, c); }
  void spoke(Client& c) { duplicates.spoke(peer, c); }
  int64_t keys() const { return counters.get(Counter::current_dup_client_keys); }
  int64_t conns() const { return counters.get(Counter::current_dup_client_conns); }
};

bool isMember(const Peer& peer, const Client& client) {
  const Client* c = peer.connections;
  while (c != nullptr && c != &client) c = c->next_of_key;
  return c != nullptr;
}

}  // namespace

TEST("the only connection of a key is active, and none when it left") {
  Set s(DuplicatePolicy::kLastWriterActive);
  Client a;
  s.join(a);
  CHECK(s.peer.active == &a);
  CHECK_EQ(s.keys(), 0);
  s.leave(a);
  CHECK(s.peer.active == nullptr);
  CHECK_EQ(s.peer.connection_count, 0u);
}

TEST("a new connection becomes active at once") {
  for (const auto policy : {DuplicatePolicy::kLastWriterActive, DuplicatePolicy::kDisableFighters}) {
    Set s(policy);
    Client a, b, c;
    s.join(a);
    s.join(b);
    CHECK(s.peer.active == &b);
    s.join(c);
    CHECK(s.peer.active == &c);
  }
}

TEST("last writer: who last sent any frame is active") {
  Set s(DuplicatePolicy::kLastWriterActive);
  Client a, b, c;
  s.join(a);
  s.join(b);
  s.join(c);
  for (Client* speaker : {&a, &a, &b, &a, &c, &b}) {
    s.spoke(*speaker);
    CHECK(s.peer.active == speaker);
    CHECK(!a.disabled && !b.disabled && !c.disabled);
  }
}

TEST("last writer: when the active one leaves the most recent speaker follows") {
  Set s(DuplicatePolicy::kLastWriterActive);
  Client a, b, c;
  s.join(a);
  s.join(b);
  s.join(c);
  s.spoke(b);
  s.spoke(a);
  s.spoke(c);
  s.leave(c);
  CHECK(s.peer.active == &a);
  s.leave(a);
  CHECK(s.peer.active == &b);
}

TEST("one that is not active may leave without a change") {
  Set s(DuplicatePolicy::kLastWriterActive);
  Client a, b, c;
  s.join(a);
  s.join(b);
  s.join(c);
  s.leave(b);
  CHECK(s.peer.active == &c);
}

TEST("when the set shrinks to one, that one is active") {
  for (const auto policy : {DuplicatePolicy::kLastWriterActive, DuplicatePolicy::kDisableFighters}) {
    Set s(policy);
    Client a, b;
    s.join(a);
    s.join(b);
    s.leave(b);
    CHECK(s.peer.active == &a);
  }
}

TEST("fighters: speech does not move the active role, the newest stays active") {
  Set s(DuplicatePolicy::kDisableFighters);
  Client a, b;
  s.join(a);
  s.join(b);
  s.spoke(a);  // the older one counts as having spoken last: this is no fight
  s.spoke(a);
  CHECK(s.peer.active == &b);
  s.spoke(b);  // for the first time
  CHECK(s.peer.active == &b);
  CHECK(!a.disabled && !b.disabled);
}

TEST("fighters: who speaks again after another spoke disables the whole set") {
  Set s(DuplicatePolicy::kDisableFighters);
  Client a, b;
  s.join(a);
  s.join(b);
  s.spoke(b);
  CHECK(s.peer.active == &b);
  s.spoke(a);
  CHECK(s.peer.active == nullptr);
  CHECK(a.disabled && b.disabled);
  s.spoke(b);
  s.spoke(a);
  CHECK(s.peer.active == nullptr);
}

TEST("fighters: the set stays disabled until it shrinks to one, which is then active and free") {
  Set s(DuplicatePolicy::kDisableFighters);
  Client a, b, c;
  s.join(a);
  s.join(b);
  s.join(c);
  s.spoke(a);
  CHECK(s.peer.active == nullptr);
  s.leave(c);
  CHECK(s.peer.active == nullptr);
  s.leave(a);
  CHECK(s.peer.active == &b);
  CHECK(!b.disabled);
  Client d;  // the memory of the fight is gone: a new set begins
  s.join(d);
  CHECK(s.peer.active == &d);
  s.spoke(b);
  CHECK(s.peer.active == &d);
}

TEST("fighters: one that joins a disabled set is active at once, until the next fight") {
  Set s(DuplicatePolicy::kDisableFighters);
  Client a, b, c;
  s.join(a);
  s.join(b);
  s.spoke(b);
  s.spoke(a);
  CHECK(s.peer.active == nullptr);
  s.join(c);
  CHECK(s.peer.active == &c);
  CHECK(!c.disabled);
  s.spoke(c);
  CHECK(s.peer.active == &c);
  s.spoke(a);
  CHECK(s.peer.active == nullptr);
  CHECK(c.disabled);
}

TEST("fighters: when the newest leaves the most recent speaker follows") {
  Set s(DuplicatePolicy::kDisableFighters);
  Client a, b, c;
  s.join(a);
  s.join(b);
  s.spoke(b);
  s.join(c);
  s.leave(c);
  CHECK(s.peer.active == &b);
}

TEST("duplicate gauges count sets of several only, and every one that joined") {
  Set s(DuplicatePolicy::kLastWriterActive);
  Client a, b, c;
  s.join(a);
  s.join(b);
  CHECK_EQ(s.keys(), 1);
  CHECK_EQ(s.conns(), 2);
  s.join(c);
  CHECK_EQ(s.keys(), 1);
  CHECK_EQ(s.conns(), 3);
  CHECK_EQ(s.counters.get(Counter::total_dup_client_conns), 2);
  s.leave(a);
  CHECK_EQ(s.conns(), 2);
  s.leave(c);
  CHECK_EQ(s.keys(), 0);
  CHECK_EQ(s.conns(), 0);
  s.leave(b);
  CHECK_EQ(s.counters.get(Counter::total_dup_client_conns), 2);
}

TEST("after any history the list has everyone once and the active one is a member that may be active") {
  for (const auto policy : {DuplicatePolicy::kLastWriterActive, DuplicatePolicy::kDisableFighters}) {
    check::Random random(7);
    Set s(policy);
    Client clients[6];
    bool in[6] = {};
    for (int step = 0; step < 50'000; ++step) {
      const uint32_t i = random.below(6);
      if (!in[i]) {
        clients[i].spoke = 0;
        clients[i].disabled = false;
        s.join(clients[i]);
        CHECK(s.peer.active == &clients[i]);
      } else if (random.oneIn(3)) {
        s.leave(clients[i]);
      } else if (s.peer.connection_count > 1) {
        s.spoke(clients[i]);
        if (policy == DuplicatePolicy::kLastWriterActive) CHECK(s.peer.active == &clients[i]);
      } else {
        continue;
      }
      in[i] = isMember(s.peer, clients[i]);
      uint32_t members = 0;
      for (const bool member : in) members += member ? 1 : 0;
      uint32_t listed = 0;
      bool has_active = s.peer.active == nullptr;
      for (Client* c = s.peer.connections; c != nullptr; c = c->next_of_key) {
        ++listed;
        has_active = has_active || c == s.peer.active;
      }
      CHECK_EQ(listed, members);
      CHECK_EQ(s.peer.connection_count, members);
      CHECK(has_active);
      CHECK(s.peer.active == nullptr || !s.peer.active->disabled);
      if (members == 1) CHECK(s.peer.active == s.peer.connections && !s.peer.active->disabled);
      CHECK_EQ(s.conns(), members > 1 ? members : 0);
      CHECK_EQ(s.keys(), members > 1 ? 1 : 0);
    }
  }
}
