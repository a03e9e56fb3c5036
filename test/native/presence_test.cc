// Watchers in routers: floods in bounded steps, changes in order, and slow watchers that harm themselves only.
#include <algorithm>
#include <set>
#include <string>

#include "check.h"
#include "relay_model.h"

using namespace derplane;
using frames::Bytes;
using frames::operator+;
using model::Options;
using model::Relay;
using model::Session;

namespace {

const Bytes kWatch = frames::frame(FrameType::kWatchConns, {});

struct Change {
  bool present;
  uint32_t number;  // of the key
};

// Presence that a watcher read since the last call, in order.
std::vector<Change> changes(Session& watcher) {
  std::vector<Change> all;
  for (const Bytes& f : watcher.received()) {
    const FrameType type = frameType(f.data());
    if (type == FrameType::kPeerPresent) {
      CHECK_EQ(f.size(), kPeerPresentFrameSize);
      all.push_back({true, frames::numberOf(f.data() + kFrameHeaderSize)});
    } else if (type == FrameType::kPeerGone) {
      CHECK_EQ(f.back(), static_cast<uint8_t>(PeerGoneReason::kDisconnected));
      all.push_back({false, frames::numberOf(f.data() + kFrameHeaderSize)});
    }
  }
  return all;
}

// Applies changes to what a watcher believes.
void replay(Session& watcher, std::multiset<uint32_t>& present) {
  for (const Change& change : changes(watcher)) {
    if (change.present) {
      present.insert(change.number);
    } else {
      present.erase(change.number);
    }
  }
}

std::set<uint32_t> keysHere(Relay& relay) {
  std::set<uint32_t> keys;
  for (const Session* session : relay.sessions()) {
    if (!session->closed()) keys.insert(frames::numberOf(session->key.bytes));
  }
  return keys;
}

// Clients of the keys 1 to `count`.
void crowd(Relay& relay, uint32_t count) {
  for (uint32_t n = 1; n <= count; ++n) {
    relay.connect(frames::keyOf(n));
    if (n % 1000 == 0) relay.settle();
  }
}

}  // namespace

TEST("a flood is done in bounded steps, and packets go between them") {
  Relay relay;
  constexpr uint32_t kClients = 5000;
  for (uint32_t n = 1; n <= kClients; ++n) relay.connect(frames::keyOf(n));
  relay.settle();
  Session& watcher = relay.connect(frames::keyOf(kClients + 1), true);
  Session& sender = relay.connect(frames::keyOf(kClients + 2));
  Session& receiver = relay.connect(frames::keyOf(kClients + 3));
  relay.settle();
  receiver.received();
  relay.send(watcher, kWatch);
  size_t told = 0, steps = 0;
  while (relay.turn(0)) {
    const size_t now = changes(watcher).size();
    CHECK(now <= 1024);
    told += now;
    ++steps;
    relay.send(sender, frames::sendPacket(receiver.key, Bytes(10)));
    relay.turn(0);
    told += changes(watcher).size();
    CHECK_EQ(receiver.received().size(), 1u);
    if (told >= kClients + 3) break;
  }
  relay.settle();
  CHECK_EQ(told + changes(watcher).size(), kClients + 3);
  CHECK(steps >= 2);
}

TEST("who comes and goes during a flood is told of, in slots that it passed and in those to come") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    check::note("seed " + std::to_string(seed));
    check::Random random(seed);
    const uint32_t shards = 1 + random.below(2);
    Relay relay({.shards = shards});
    crowd(relay, 5000);
    Session& watcher = relay.connect(frames::keyOf(100'000), true);
    relay.settle();
    relay.send(watcher, kWatch);
    std::multiset<uint32_t> present;
    uint32_t next = 5001;
    for (uint32_t round = 0; round < 12; ++round) {
      relay.turn(random.below(shards));
      const std::vector<Session*> all = relay.sessions();
      for (uint32_t n = 0; n < 20; ++n) {
        // What leaves is destroyed at the turn's end, and its slot taken by who comes then.
        Session* leaver = all[random.below(static_cast<uint32_t>(all.size()))];
        if (leaver != &watcher && !leaver->closed() && !leaver->client->closing) relay.disconnect(*leaver);
        relay.connect(frames::keyOf(random.oneIn(4) ? random.below(next) : next++));
      }
    }
    relay.settle();
    replay(watcher, present);
    CHECK(std::set<uint32_t>(present.begin(), present.end()) == keysHere(relay));
    CHECK_EQ(relay.violation(), "");
  }
}

TEST("a watcher that reads nothing holds its flood back, and misses nothing once it reads") {
  for (const uint32_t shards : {1U, 2U}) {
    Relay relay({.shards = shards});
    crowd(relay, 40'000);  // 2.2 MB of presence
    Session& watcher = relay.connect(frames::keyOf(50'000), true);
    relay.settle();
    watcher.kernel_room = 0;
    for (int n = 0; n < 5; ++n) {
      relay.send(watcher, kWatch);
      relay.settle();
    }
    // A step more than the bound may be under way.
    if (shards == 1) CHECK(watcher.client->queue.controlBytes() < (1 << 20) + 2 * 1024 * kPeerPresentFrameSize);
    watcher.kernel_room = UINT64_MAX;
    relay.settle();
    std::set<uint32_t> told;
    for (const Change& change : changes(watcher)) {
      CHECK(change.present);
      told.insert(change.number);
    }
    CHECK(told == keysHere(relay));
  }
}

TEST("a watcher that reads nothing and asks for ever is held back, its memory with it, and the others notice nothing") {
  Relay relay({.shards = 2});
  crowd(relay, 20'000);
  Session& slow = relay.connect(relay.keyOn(0, 30'000), true);
  Session& quick = relay.connect(relay.keyOn(1, 30'000), true);
  relay.send(quick, kWatch);
  relay.settle();
  changes(quick);
  slow.kernel_room = 0;
  for (uint32_t asked = 0; asked < 1000; ++asked) {
    relay.send(slow, kWatch);
    relay.settle();
  }
  CHECK(!slow.closed());
  // A crowd of 20,000 once, not a thousand times.
  CHECK(slow.client->queue.controlBytes() < 2 * 20'000 * kPeerPresentFrameSize);
  CHECK(changes(quick).empty());
  relay.disconnect(slow);
  relay.settle();
  const std::vector<Change> last = changes(quick);
  CHECK(last.size() == 1 && !last[0].present && last[0].number == frames::numberOf(slow.key.bytes));
  CHECK_EQ(relay.get(Counter::watchers), 1);
}

TEST("whatever comes, goes and fights meanwhile, watchers end up knowing who is here") {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    check::note("seed " + std::to_string(seed));
    check::Random random(seed);
    const uint32_t shards = 1 + random.below(4);
    Relay relay({.shards = shards});
    struct Watching {
      Session* session;
      std::multiset<uint32_t> present;
    };
    std::vector<Watching> watchers;
    for (uint32_t step = 0; step < 600; ++step) {
      std::vector<Session*> open;
      for (Session* session : relay.sessions()) {
        if (!session->closed() && !session->client->closing) open.push_back(session);
      }
      const uint32_t what = random.below(10);
      if (what < 4 || open.empty()) {
        relay.connect(frames::keyOf(1 + random.below(30)));
      } else if (what < 7) {
        Session* leaver = open[random.below(static_cast<uint32_t>(open.size()))];
        const bool watches =
            std::any_of(watchers.begin(), watchers.end(), [&](auto& w) { return w.session == leaver; });
        if (!watches) relay.disconnect(*leaver);
      } else if (what < 8 && watchers.size() < 5) {
        Session& session = relay.connect(frames::keyOf(100 + static_cast<uint32_t>(watchers.size())), true);
        relay.send(session, kWatch);
        watchers.push_back({&session, {}});
      } else if (what < 9) {
        relay.send(*open[random.below(static_cast<uint32_t>(open.size()))], frames::ping(step));
      } else if (!watchers.empty()) {
        // A kernel that takes little, or everything again.
        watchers[random.below(static_cast<uint32_t>(watchers.size()))].session->kernel_room =
            random.oneIn(2) ? random.below(300) : UINT64_MAX;
      }
      // Shards run when they run.
      for (uint32_t n = random.below(3); n > 0; --n) relay.turn(random.below(shards));
    }
    for (Watching& watcher : watchers) watcher.session->kernel_room = UINT64_MAX;
    relay.settle();
    const std::set<uint32_t> here = keysHere(relay);
    for (Watching& watcher : watchers) {
      replay(*watcher.session, watcher.present);
      CHECK(std::set<uint32_t>(watcher.present.begin(), watcher.present.end()) == here);
    }
    CHECK_EQ(relay.get(Counter::watchers), watchers.size());
    CHECK_EQ(relay.violation(), "");
    if (check::failures() > 0) return;
  }
}

TEST("every watcher hears of a comer within the turns that a packet needs") {
  Relay relay({.shards = 3});
  std::vector<Session*> watchers;
  for (uint32_t shard = 0; shard < 3; ++shard) {
    watchers.push_back(&relay.connect(relay.keyOn(shard, 0), true));
    relay.send(*watchers.back(), kWatch);
  }
  relay.settle();
  for (Session* watcher : watchers) changes(*watcher);
  for (uint32_t shard = 0; shard < 3; ++shard) {
    Session& comer = relay.connect(relay.keyOn(shard, 1));
    relay.turn(shard);
    for (uint32_t other = 0; other < 3; ++other) relay.turn(other);
    for (Session* watcher : watchers) {
      const std::vector<Change> told = changes(*watcher);
      CHECK(told.size() == 1 && told[0].present && told[0].number == frames::numberOf(comer.key.bytes));
    }
  }
}

TEST("a watcher's slot may be taken over at once: the successor hears nothing") {
  Relay relay({.shards = 2});
  Session& watcher = relay.connect(relay.keyOn(0, 0), true);
  relay.send(watcher, kWatch);
  relay.settle();
  relay.disconnect(watcher);
  Session& successor = relay.connect(relay.keyOn(0, 1));
  relay.connect(relay.keyOn(0, 2));
  relay.connect(relay.keyOn(1, 0));
  relay.settle();
  CHECK(changes(successor).empty());
  CHECK_EQ(relay.get(Counter::watchers), 0);
}

TEST("WatchConns and ClosePeer in one write: the flood with the key comes first, then its absence") {
  for (const uint32_t shards : {1u, 2u, 3u}) {
    Relay relay({.shards = shards});
    crowd(relay, 3000);
    Session& watcher = relay.connect(frames::keyOf(100'000), true);
    relay.settle();
    Bytes burst = kWatch;
    for (uint32_t n = 1; n <= 5; ++n)
      burst = burst + frames::frame(FrameType::kClosePeer, frames::bytesOf(frames::keyOf(n)));
    relay.send(watcher, burst);
    relay.settle();
    const std::vector<Change> told = changes(watcher);
    CHECK_EQ(told.size(), 3001u + 5u);
    for (size_t i = 0; i < told.size(); ++i) CHECK_EQ(told[i].present, i < 3001);
    CHECK_EQ(relay.get(Counter::clients_local), 3001 - 5);
    CHECK_EQ(relay.violation(), "");
  }
}

TEST("WatchConns twice in one write floods twice, its own key included") {
  for (const uint32_t shards : {1u, 3u}) {
    Relay relay({.shards = shards});
    crowd(relay, 2000);
    Session& watcher = relay.connect(frames::keyOf(100'000), true);
    relay.settle();
    relay.send(watcher, kWatch + kWatch);
    relay.settle();
    std::multiset<uint32_t> present;
    replay(watcher, present);
    CHECK_EQ(present.size(), 2u * 2001u);
    CHECK_EQ(present.count(100'000), 2u);
    CHECK_EQ(relay.get(Counter::watchers), 1);
  }
}

TEST("packets that follow WatchConns do not wait for its flood") {
  Relay relay;
  crowd(relay, 5000);
  Session& watcher = relay.connect(frames::keyOf(100'000), true);
  Session& receiver = relay.connect(frames::keyOf(100'001));
  relay.settle();
  receiver.received();
  relay.send(watcher, kWatch + frames::sendPacket(receiver.key, Bytes(10)));
  relay.turn(0);
  CHECK_EQ(receiver.received().size(), 1u);
  CHECK(changes(watcher).size() < 5000);
  relay.settle();
}

TEST("a mesh peer that closes keys without end fills no list, and all of them are closed") {
  Relay relay({.shards = 2});
  Session& mesh = relay.connect(relay.keyOn(0, 0), true);
  std::vector<Session*> victims;
  for (uint32_t n = 0; n < 500; ++n) victims.push_back(&relay.connect(relay.keyOn(1, n)));
  relay.settle();
  Bytes burst;
  for (uint32_t n = 0; n < 20'000; ++n) {
    burst = burst + frames::frame(FrameType::kClosePeer, frames::bytesOf(victims[n % 500]->key));
  }
  relay.send(mesh, burst);
  // The other shard sleeps: what it is to be told waits where it was read from.
  for (int n = 0; n < 1000; ++n) relay.turn(0);
  CHECK(mesh.client->paused);
  CHECK(relay.router(0).waitingNotices() <= 3 * Router::kCrowd);
  relay.settle();
  CHECK(!mesh.client->paused && mesh.unread.empty() && mesh.client->carry == nullptr);
  for (Session* victim : victims) CHECK(victim->closed());
  CHECK(relay.get(Counter::crowd_pauses) > 0);
}
