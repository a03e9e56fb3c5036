// Whom a relay ends to make room for a newcomer: the order of handshakes in progress, and the budget that uses it.
#include "native/io/handshake_roster.h"

#include <sys/socket.h>

#include <cstring>
#include <deque>
#include <thread>
#include <vector>

#include "check.h"
#include "native/io/address.h"
#include "native/io/connection.h"
#include "native/io/relay_core.h"

using namespace derplane;

namespace {

constexpr uint64_t kMute = HandshakeRoster::kMuteGraceMs;
constexpr uint64_t kStep = HandshakeRoster::kStepGraceMs;

Address address(const char* text) { return parseAddress(text); }

// Entries with sockets of their own, in a roster where a source may have two.
struct Rig {
  explicit Rig(uint32_t share = 2) : roster({1, 2}, share) {}
  ~Rig() {
    for (Member& member : members) roster.leave(member.entry);
  }

  struct Member {
    Fd near, far;
    RosterEntry entry;
  };

  RosterEntry& join(const char* from, uint64_t now, bool spoke = false) {
    Member& member = members.emplace_back();
    int fds[2];
    CHECK_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    member.near = Fd(fds[0]);
    member.far = Fd(fds[1]);
    member.entry.id = members.size();
    member.entry.fd = member.near.get();
    roster.join(member.entry, address(from), spoke, now);
    return member.entry;
  }
  void send(const RosterEntry& entry) { CHECK_EQ(::send(members[entry.id - 1].far.get(), "x", 1, 0), 1); }

  HandshakeRoster roster;
  std::deque<Member> members;
};

}  // namespace

TEST("the oldest that sent nothing goes first, then the one without progress for longest") {
  Rig rig;
  RosterEntry& stuck = rig.join("192.0.2.1:1", 0, true);
  RosterEntry& later_stuck = rig.join("192.0.2.2:1", 0);
  RosterEntry& first = rig.join("192.0.2.3:1", 1);
  RosterEntry& second = rig.join("192.0.2.4:1", 2);
  rig.roster.step(later_stuck, 3);
  CHECK(rig.roster.takeSilent(10'000) == &first);
  CHECK(rig.roster.takeSilent(10'000) == &second);
  CHECK(rig.roster.takeSilent(10'000) == &stuck);
  CHECK(rig.roster.takeSilent(10'000) == &later_stuck);
  CHECK(rig.roster.takeSilent(10'000) == nullptr);
  CHECK_EQ(rig.roster.sources(), 0u);
}

TEST("nobody is ended within the time that a real client needs") {
  Rig rig;
  RosterEntry& mute = rig.join("192.0.2.1:1", 1'000);
  RosterEntry& spoke = rig.join("192.0.2.2:1", 1'000, true);
  CHECK(rig.roster.takeSilent(1'000 + kMute - 1) == nullptr);
  CHECK(rig.roster.takeSilent(1'000 + kMute) == &mute);
  CHECK(rig.roster.takeSilent(1'000 + kStep - 1) == nullptr);
  rig.roster.step(spoke, 1'900);
  CHECK(rig.roster.takeSilent(1'900 + kStep - 1) == nullptr);
  CHECK(rig.roster.takeSilent(1'900 + kStep) == &spoke);
}

TEST("bytes that nobody has read yet save a connection once, not for ever") {
  Rig rig;
  RosterEntry& late = rig.join("192.0.2.1:1", 0);
  RosterEntry& mute = rig.join("192.0.2.2:1", 50);
  rig.send(late);
  CHECK(rig.roster.takeSilent(1'000) == &mute);
  CHECK(rig.roster.takeSilent(1'000 + kStep - 1) == nullptr);
  CHECK(rig.roster.takeSilent(1'000 + kStep) == &late);
}

TEST("a step gives the right to be saved again") {
  Rig rig;
  RosterEntry& entry = rig.join("192.0.2.1:1", 0, true);
  rig.send(entry);
  CHECK(rig.roster.takeSilent(kStep) == nullptr);
  rig.roster.step(entry, kStep + 1);
  CHECK(rig.roster.takeSilent(2 * kStep + 1) == nullptr);
  CHECK(rig.roster.takeSilent(3 * kStep + 1) == &entry);
}

TEST("a source is an IPv4 address or an IPv6 /64, and loses only its own") {
  Rig rig;
  RosterEntry& other = rig.join("192.0.2.1:1", 0);
  RosterEntry& v4 = rig.join("192.0.2.2:1", 1);
  RosterEntry& v6 = rig.join("[2001:db8:0:1::1]:1", 1);
  CHECK(!rig.roster.atShare(address("192.0.2.2:9")));
  rig.join("192.0.2.2:2", 2);
  rig.join("[2001:db8:0:1:ffff::2]:7", 2);
  CHECK(rig.roster.atShare(address("192.0.2.2:9")));
  CHECK(rig.roster.atShare(address("[::ffff:192.0.2.2]:9")));
  CHECK(!rig.roster.atShare(address("192.0.2.3:9")));
  CHECK(rig.roster.atShare(address("[2001:db8:0:1::9]:9")));
  CHECK(!rig.roster.atShare(address("[2001:db8:0:2::1]:9")));
  CHECK(rig.roster.takeSilentOf(address("192.0.2.2:9"), 1'000) == &v4);
  CHECK(rig.roster.takeSilentOf(address("[2001:db8:0:1::9]:9"), 1'000) == &v6);
  CHECK(rig.roster.takeSilentOf(address("192.0.2.3:9"), 1'000) == nullptr);
  CHECK(rig.roster.takeSilent(1'000) == &other);
}

TEST("connections of unknown addresses share nothing") {
  Rig rig;
  for (int i = 0; i < 5; ++i) rig.join("", 0);
  CHECK(!rig.roster.atShare(Address{}));
  CHECK(rig.roster.takeOverShare() == nullptr);
  CHECK_EQ(rig.roster.sources(), 0u);
  CHECK(rig.roster.takeSilent(1'000) != nullptr);
}

TEST("a source over its share loses its oldest, busy or not, until it is back at its share") {
  Rig rig;
  rig.join("192.0.2.1:1", 0, true);
  RosterEntry& first = rig.join("192.0.2.2:1", 0, true);
  RosterEntry& second = rig.join("192.0.2.2:2", 0, true);
  rig.join("192.0.2.2:3", 0, true);
  RosterEntry& mute = rig.join("192.0.2.2:4", 0);
  rig.roster.step(first, 1);
  CHECK(rig.roster.takeOverShare() == &mute);
  CHECK(rig.roster.takeOverShare() == &second);
  CHECK(rig.roster.takeOverShare() == nullptr);
}

TEST("whatever joins, steps and leaves in any order, figures and order hold") {
  Rig rig(3);
  check::Random random(7);
  std::vector<RosterEntry*> in;
  std::vector<std::string> from;
  for (int i = 0; i < 8; ++i) from.push_back("192.0.2." + std::to_string(i + 1) + ":1");
  for (uint64_t now = 0; now < 20'000; ++now) {
    switch (random.below(4)) {
      case 0:
        if (in.size() < 200) in.push_back(&rig.join(from[random.below(8)].c_str(), now));
        break;
      case 1:
        if (!in.empty()) rig.roster.step(*in[random.below(static_cast<uint32_t>(in.size()))], now);
        break;
      default: {
        RosterEntry* const out = random.oneIn(2) ? rig.roster.takeSilent(now) : rig.roster.takeOverShare();
        if (out == nullptr) break;
        CHECK_EQ(std::erase(in, out), 1u);
        rig.members[out->id - 1].near.reset();
        rig.members[out->id - 1].far.reset();
      }
    }
  }
  for (RosterEntry* entry : in) rig.roster.leave(*entry);
  CHECK_EQ(rig.roster.sources(), 0u);
  CHECK(rig.roster.takeSilent(1'000'000) == nullptr);
  CHECK(rig.roster.takeOverShare() == nullptr);
}

namespace {

std::shared_ptr<RelayCore> relayWith(HandshakeBudget::Limits limits) {
  RelayConfig config;
  config.handshakes = limits;
  return RelayCore::create(std::move(config));
}

// A connection of a relay in the process's table; the far end stays open.
struct Visitor {
  Visitor(const std::shared_ptr<RelayCore>& relay, const char* from, bool spoke) {
    int fds[2];
    CHECK_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    far = Fd(fds[1]);
    auto connection = std::make_unique<Connection>(relay, Fd(fds[0]), address(from));
    connection->spoke = spoke;
    id = ConnectionTable::instance().add(std::move(connection));
  }
  bool open() const {
    char byte;
    return ::recv(far.get(), &byte, 1, MSG_DONTWAIT | MSG_PEEK) != 0;
  }

  Fd far;
  uint64_t id = 0;
};

void pause(uint64_t ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

}  // namespace

TEST("a newcomer takes the place of a silent connection that no thread uses, at once") {
  const auto relay = relayWith({.max = 2, .max_bytes = 1 << 20, .max_per_source = 9});
  CHECK(relay->budget.admit(address("192.0.2.1:1")));
  const Visitor first(relay, "192.0.2.1:1", false), second(relay, "192.0.2.1:2", false);
  CHECK(!relay->budget.admit(address("192.0.2.1:3")));  // both have just come
  CHECK_EQ(relay->budget.refused(), 1u);
  pause(kMute);
  CHECK(relay->budget.admit(address("192.0.2.1:3")));
  CHECK(!first.open() && second.open());
  CHECK_EQ(relay->budget.evicted(Eviction::kHandshakes), 1u);
  CHECK_EQ(relay->budget.handshakes(), 1);
  ConnectionTable::instance().discardAll(relay.get());
  CHECK_EQ(relay->budget.handshakes(), 0);
}

TEST("a thread that uses a connection is asked to end it, and its place is free already") {
  const auto relay = relayWith({.max = 1, .max_bytes = 1 << 20, .max_per_source = 9});
  const Visitor peer(relay, "192.0.2.1:1", false);
  Connection* const used = ConnectionTable::instance().borrow(peer.id);
  pause(kMute);
  CHECK(relay->budget.admit(address("192.0.2.2:1")));
  CHECK(used->evicted());
  CHECK(used->read(10) == Connection::ReadResult::kEnd);
  CHECK_EQ(relay->budget.handshakes(), 1);
  CHECK(ConnectionTable::instance().remove(peer.id) != nullptr);
  CHECK_EQ(relay->budget.handshakes(), 0);
  CHECK(!peer.open());
}

TEST("a connection on its way to a shard is not ended") {
  const auto relay = relayWith({.max = 1, .max_bytes = 1 << 20, .max_per_source = 9});
  const Visitor peer(relay, "192.0.2.1:1", false);
  const auto connection = ConnectionTable::instance().remove(peer.id);
  pause(kMute);
  CHECK(!relay->budget.admit(address("192.0.2.2:1")));
  CHECK(!connection->evicted());
}

TEST("a source at its share makes its own room, and may exceed it while nobody else needs the room") {
  const auto relay = relayWith({.max = 4, .max_bytes = 1 << 20, .max_per_source = 2});
  const Visitor other(relay, "192.0.2.9:1", false);
  const Visitor mute(relay, "192.0.2.1:1", false), busy(relay, "192.0.2.1:2", true);
  pause(kMute);
  CHECK(relay->budget.admit(address("192.0.2.1:3")));
  CHECK(!mute.open() && busy.open() && other.open());
  const Visitor third(relay, "192.0.2.1:3", true), fourth(relay, "192.0.2.1:4", true);
  CHECK(relay->budget.admit(address("192.0.2.1:5")) && !other.open());  // full: the oldest silent one of all
  const Visitor fifth(relay, "192.0.2.1:5", true);
  CHECK(!relay->budget.admit(address("192.0.2.1:6")));
  CHECK(relay->budget.admit(address("192.0.2.8:1")) && !busy.open());
  CHECK_EQ(relay->budget.evicted(Eviction::kSourceShare), 2u);
  ConnectionTable::instance().discardAll(relay.get());
}

TEST("bytes that a stuck handshake holds go to one that goes on") {
  const auto relay = relayWith({.max = 9, .max_bytes = 10'000, .max_per_source = 9});
  const Visitor stuck(relay, "192.0.2.1:1", true), fresh(relay, "192.0.2.2:1", true);
  const std::string bytes(6'000, 'x');
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  Connection* const first = ConnectionTable::instance().borrow(stuck.id);
  Connection* const second = ConnectionTable::instance().borrow(fresh.id);
  CHECK(first->append(data, bytes.size()));
  CHECK(!second->append(data, bytes.size()));
  CHECK_EQ(relay->budget.refusedBytes(), 1u);
  pause(kStep);
  relay->budget.step(*second);
  CHECK(second->append(data, bytes.size()));
  CHECK(first->evicted() && !second->evicted());
  CHECK_EQ(relay->budget.evicted(Eviction::kHandshakeBytes), 1u);
  ConnectionTable::instance().remove(stuck.id);
  CHECK_EQ(relay->budget.bytes(), 6'000u);
  ConnectionTable::instance().remove(fresh.id);
  CHECK_EQ(relay->budget.bytes(), 0u);
}

TEST("threads that step, take and end connections while newcomers make room agree on the figures") {
  const auto relay = relayWith({.max = 64, .max_bytes = 1 << 20, .max_per_source = 8});
  std::atomic<bool> done{false};
  std::atomic<uint64_t> last{0};
  auto& table = ConnectionTable::instance();
  const auto work = [&](uint64_t seed) {
    check::Random random(seed);
    while (!done.load()) {
      const uint64_t id = last.load() + 1 - std::min<uint64_t>(last.load(), random.below(64));
      Connection* const connection = table.borrow(id);
      if (connection == nullptr) continue;
      connection->read(10);
      relay->budget.step(*connection);
      if (connection->evicted() || random.oneIn(4)) {
        table.remove(id);
      } else {
        table.giveBack(id);
      }
    }
  };
  std::thread a(work, 1), b(work, 2);
  std::deque<Visitor> peers;
  for (uint32_t i = 0; i < 3'000; ++i) {
    const std::string from = "192.0.2." + std::to_string(i % 5) + ":1";
    if (!relay->budget.admit(address(from.c_str()))) {
      std::this_thread::yield();
      continue;
    }
    last.store(peers.emplace_back(relay, from.c_str(), i % 2 == 0).id);
    if (peers.size() > 100) peers.pop_front();
  }
  done.store(true);
  a.join();
  b.join();
  table.discardAll(relay.get());
  CHECK_EQ(relay->budget.handshakes(), 0);
  CHECK_EQ(relay->budget.bytes(), 0u);
}
