// Connections before a shard owns them, the table in which threads find them, and the relay's events.
#include "native/io/connection.h"

#include <sys/socket.h>

#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <utility>

#include "check.h"
#include "native/io/relay_core.h"

using namespace derplane;

namespace {

std::shared_ptr<RelayCore> relayWith(size_t max_handshake_bytes) {
  RelayConfig config;
  config.handshakes.max_bytes = max_handshake_bytes;
  return RelayCore::create(std::move(config));
}

struct Pair {
  explicit Pair(const std::shared_ptr<RelayCore>& relay) {
    int fds[2];
    CHECK_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    far = Fd(fds[1]);
    near = std::make_unique<Connection>(relay, Fd(fds[0]), Address{});
  }
  void write(const std::string& text) { CHECK_EQ(::send(far.get(), text.data(), text.size(), 0), text.size()); }
  std::string buffered() const { return std::string(reinterpret_cast<const char*>(near->bytes()), near->size()); }

  Fd far;
  std::unique_ptr<Connection> near;
};

bool isOpen(const Fd& far) {
  char byte;
  return ::recv(far.get(), &byte, 1, MSG_DONTWAIT | MSG_PEEK) != 0;
}

}  // namespace

TEST("reads gather behind what is buffered, consume takes from its front") {
  const auto relay = relayWith(1 << 20);
  Pair p(relay);
  CHECK(p.near->read(100) == Connection::ReadResult::kNothing);
  p.write("hello ");
  CHECK(p.near->read(100) == Connection::ReadResult::kBytes);
  p.write("world");
  CHECK(p.near->read(2) == Connection::ReadResult::kBytes);
  CHECK_EQ(p.buffered(), "hello wo");
  p.near->consume(6);
  CHECK(p.near->read(100) == Connection::ReadResult::kBytes);
  CHECK_EQ(p.buffered(), "world");
  p.near->consume(1'000);
  CHECK_EQ(p.near->size(), 0u);
  const std::string head = "read by somebody else";
  CHECK(p.near->append(reinterpret_cast<const uint8_t*>(head.data()), head.size()));
  CHECK_EQ(p.buffered(), head);
  p.far.reset();
  CHECK(p.near->read(100) == Connection::ReadResult::kEnd);
  CHECK_EQ(p.buffered(), head);
}

TEST("all handshakes together hold no more bytes than the budget, and give them back") {
  const auto relay = relayWith(10'000);
  {
    Pair first(relay), second(relay);
    CHECK_EQ(relay->budget.handshakes(), 2);
    const std::string bytes(6'000, 'x');
    CHECK(first.near->append(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()));
    CHECK(!second.near->append(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()));
    second.write("x");
    CHECK(second.near->read(4'096) == Connection::ReadResult::kBudget);
    CHECK_EQ(relay->budget.bytes(), 6'000u);
    first.near.reset();
    CHECK(second.near->read(4'096) == Connection::ReadResult::kBytes);
  }
  CHECK_EQ(relay->budget.handshakes(), 0);
  CHECK_EQ(relay->budget.bytes(), 0u);
}

TEST("a connection is found by its number until it is taken, and by one thread at a time") {
  const auto relay = relayWith(1 << 20);
  ConnectionTable table;
  Pair p(relay);
  const uint64_t id = table.add(std::move(p.near));
  CHECK(table.borrow(id + 1) == nullptr);
  Connection* borrowed = table.borrow(id);
  CHECK(borrowed != nullptr && borrowed->id == id);
  CHECK(table.borrow(id) == nullptr);
  CHECK(table.take(id) == nullptr);
  table.giveBack(id);
  CHECK(table.take(id) != nullptr);
  CHECK(table.take(id) == nullptr);
  CHECK(table.remove(id) == nullptr);
  table.giveBack(id);
  table.discard(id);
  CHECK_EQ(table.remoteText(id), "");
  CHECK(!isOpen(p.far));
  Pair next(relay);
  CHECK(table.add(std::move(next.near)) > id);
}

TEST("discarding closes at once, or shows a borrower the end") {
  const auto relay = relayWith(1 << 20);
  ConnectionTable table;
  Pair idle(relay), used(relay);
  const uint64_t idle_id = table.add(std::move(idle.near)), used_id = table.add(std::move(used.near));
  Connection* borrowed = table.borrow(used_id);
  table.discard(idle_id);
  table.discard(used_id);
  CHECK(!isOpen(idle.far) && !isOpen(used.far));
  CHECK(borrowed->read(10) == Connection::ReadResult::kEnd);
  CHECK_EQ(relay->budget.handshakes(), 1);
  CHECK(table.remove(used_id) != nullptr);
  CHECK_EQ(relay->budget.handshakes(), 0);
}

TEST("discarding all of a relay leaves the connections of others alone") {
  const auto relay = relayWith(1 << 20), other = relayWith(1 << 20);
  ConnectionTable table;
  Pair mine(relay), borrowed(relay), theirs(other);
  table.add(std::move(mine.near));
  const uint64_t borrowed_id = table.add(std::move(borrowed.near));
  table.add(std::move(theirs.near));
  table.borrow(borrowed_id);
  table.discardAll(relay.get());
  CHECK(!isOpen(mine.far) && !isOpen(borrowed.far) && isOpen(theirs.far));
  CHECK_EQ(relay->budget.handshakes(), 1);
}

TEST("threads that borrow, discard and take the same connections end each exactly once") {
  const auto relay = relayWith(1 << 20);
  ConnectionTable table;
  constexpr uint64_t kConnections = 2'000;
  for (uint64_t i = 0; i < kConnections; ++i) table.add(std::move(Pair(relay).near));
  std::atomic<uint64_t> taken{0};
  const auto work = [&](uint64_t seed) {
    check::Random random(seed);
    for (uint64_t i = 0; i < 20'000; ++i) {
      const uint64_t id = 1 + random.below(kConnections);
      switch (random.below(8)) {
        case 0:
          table.discard(id);
          break;
        case 1:
          if (table.take(id) != nullptr) taken.fetch_add(1);
          break;
        default:
          if (Connection* connection = table.borrow(id)) {
            connection->read(10);
            table.giveBack(id);
          }
      }
    }
  };
  std::thread a(work, 1), b(work, 2);
  a.join();
  b.join();
  table.discardAll(relay.get());
  CHECK(taken.load() > 0);
  CHECK_EQ(relay->budget.handshakes(), 0);
}

TEST("a relay is found by its number as long as somebody holds it") {
  auto relay = relayWith(1);
  const uint32_t id = relay->id;
  CHECK(RelayCore::find(id) == relay);
  CHECK(RelayCore::find(id + 1'000) == nullptr);
  relay.reset();
  CHECK(RelayCore::find(id) == nullptr);
}

TEST("a mesh key is proved by itself alone") {
  const auto relay = relayWith(1);
  const std::string key(64, 'a');
  CHECK(!relay->provesMeshKey(key));  // the relay has none
  relay->setMeshKey(key);
  CHECK(relay->provesMeshKey(key));
  CHECK(!relay->provesMeshKey(key.substr(2) + "00"));
  CHECK(!relay->provesMeshKey(""));
}

TEST("a mesh key never proves anything when it is all zeros") {
  const auto relay = relayWith(1);
  relay->setMeshKey(std::string(64, '0'));
  CHECK(!relay->provesMeshKey(std::string(64, '0')));
}

TEST("events wait for one call, packets and log lines only within their bounds, wanted closes always") {
  const auto relay = relayWith(1);
  int calls = 0;
  relay->emit({.kind = Event::Kind::kCheck});
  CHECK(!relay->emitPacket({.kind = Event::Kind::kForward}));
  CHECK(relay->takeEvents().empty());  // nobody listens
  relay->setEventSink([&] { ++calls; });
  for (int i = 0; i < 10'000; ++i) relay->emit({.kind = Event::Kind::kClosed});
  for (int i = 0; i < 10; ++i) relay->emit({.kind = Event::Kind::kClosed, .notify = true});
  CHECK_EQ(calls, 1);
  CHECK_EQ(relay->takeEvents().size(), 4'096u + 10);
  uint32_t packets = 0;
  while (relay->emitPacket({.kind = Event::Kind::kForward, .packet = std::vector<uint8_t>(65'536)})) ++packets;
  CHECK(packets > 200 && packets <= 256);
  CHECK_EQ(calls, 2);
  CHECK_EQ(relay->takeEvents().size(), packets);
  CHECK(relay->emitPacket({.kind = Event::Kind::kForward}));
  relay->setEventSink(nullptr);
}

TEST("a shard that ended takes no mail, and what waited is given back") {
  ShardSlot slot;
  CHECK(slot.post({.kind = Mail::Kind::kCheck, .ticket = 1}));
  const std::vector<Mail> unread = slot.retire();
  CHECK(unread.size() == 1 && unread[0].ticket == 1);
  CHECK(!slot.post({.kind = Mail::Kind::kCheck, .ticket = 2}));
  CHECK(slot.retired());
  CHECK(slot.takeMail().empty());
}
