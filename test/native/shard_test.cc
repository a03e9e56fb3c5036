// Real shards on real sockets; the test says when each of them runs, and what becomes of its wake-ups.
#include "native/io/shard.h"

#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "frames.h"

using namespace derplane;
using frames::Bytes;

namespace {

constexpr uint32_t kShards = 2;
constexpr uint32_t kPacketSize = 16 << 10;
// More than the ring takes, and what lies in front of it.
constexpr uint32_t kPackets = 64;

// The far end of a client.
struct Peer {
  Key key;
  Fd fd;
  Bytes unsent;
  frames::Reader inbox;

  // As much as the kernel takes.
  void write() {
    const ssize_t n = ::send(fd.get(), unsent.data(), unsent.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) unsent.erase(unsent.begin(), unsent.begin() + n);
  }
  // Packets that came.
  uint32_t read() {
    uint8_t bytes[64 << 10];
    for (ssize_t n; (n = ::recv(fd.get(), bytes, sizeof bytes, MSG_DONTWAIT)) > 0;) {
      inbox.feed(bytes, static_cast<size_t>(n));
    }
    uint32_t packets = 0;
    for (const Bytes& frame : inbox.all()) packets += frame[0] == static_cast<uint8_t>(FrameType::kRecvPacket) ? 1 : 0;
    return packets;
  }
};

class TwoShards {
 public:
  TwoShards() {
    RelayConfig config;
    config.router.seed = {1, 2};
    config.router.shards = kShards;
    config.rtt_interval_ms = 0;
    config.rings.resize(kShards * kShards);
    for (uint32_t i = 0; i < kShards; ++i) {
      config.counters.push_back(counters_[i]);
      memory_[i].resize(kMinRingBytes + kRingOverhead);
      config.rings[i * kShards + (1 - i)] = RingMemory::in(memory_[i].data(), memory_[i].size());
    }
    core_ = RelayCore::create(config);
    core_->setEventSink([] {});
    for (uint32_t i = 0; i < kShards; ++i) {
      std::string error;
      shards_.push_back(Shard::start(&loops_[i], core_, i, error));
      CHECK_EQ(error, "");
    }
  }
  ~TwoShards() {
    for (auto& shard : shards_) shard->close(nullptr);
    for (uv_loop_t& loop : loops_) loop.finishClosing();
    core_->setEventSink(nullptr);
  }

  Peer connect(uint32_t shard) {
    Peer peer;
    do peer.key = frames::keyOf(++last_key_);
    while (core_->shardOf(peer.key) != shard);
    int ends[2];
    CHECK_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    peer.fd = Fd(ends[0]);
    Mail mail{.kind = Mail::Kind::kAdopt};
    mail.adoption.key = peer.key;
    mail.connection = std::make_unique<Connection>(core_, Fd(ends[1]), Address{});
    mail.connection->exempt = true;
    mail.bytes = frames::frame(FrameType::kServerInfo, Bytes(40, 3));
    slot(shard).post(std::move(mail));
    run(shard);
    return peer;
  }

  // The shard's callback of its poller, or of its timer.
  void run(uint32_t shard) { loops_[shard].wake(); }
  void tick(uint32_t shard) { loops_[shard].tick(); }
  ShardSlot& slot(uint32_t shard) { return *core_->slots[shard]; }
  int64_t get(uint32_t shard, Counter counter) const {
    return Counters(const_cast<int64_t*>(counters_[shard])).get(counter);
  }

  // Ends the shard; returns how many ends of connections it told of.
  uint32_t ends(uint32_t shard) {
    shards_[shard]->close(nullptr);
    uint32_t count = 0;
    for (const Event& event : core_->takeEvents()) {
      count += event.kind == Event::Kind::kClosed && event.reason == CloseReason::server_closed ? 1 : 0;
    }
    return count;
  }

  // What the shard's consistency check finds.
  std::vector<std::string> violations(uint32_t shard) {
    slot(shard).post(Mail{.kind = Mail::Kind::kCheck, .on = true});
    run(shard);
    for (Event& event : core_->takeEvents()) {
      if (event.kind == Event::Kind::kCheck) return std::move(event.violations);
    }
    return {"no answer"};
  }

 private:
  int64_t counters_[kShards][kCounterCount] = {};
  Bytes memory_[kShards];
  std::shared_ptr<RelayCore> core_;
  uv_loop_t loops_[kShards];
  std::vector<std::shared_ptr<Shard>> shards_;
  uint32_t last_key_ = 0;
};

// A client of shard 0 that waits for the ring to shard 1, where its packets go.
struct Blocked {
  Blocked() : sender(relay.connect(0)), receiver(relay.connect(1)) {
    for (uint32_t n = 0; n < kPackets; ++n) {
      const Bytes frame = frames::sendPacket(receiver.key, Bytes(kPacketSize));
      sender.unsent.insert(sender.unsent.end(), frame.begin(), frame.end());
    }
    receiver.read();
    for (uint32_t n = 0; n < kPackets && relay.get(0, Counter::ring_full) == 0; ++n) {
      sender.write();
      relay.run(0);
    }
    CHECK(relay.get(0, Counter::ring_full) > 0);
  }

  int64_t sent() const { return relay.get(0, Counter::ring_packets_out); }
  int64_t lost() const { return relay.get(0, Counter::lost_wakes); }
  // Everything runs until nothing comes any more; returns the packets that came.
  uint32_t settle() {
    uint32_t packets = 0;
    for (uint32_t n = 0; n < 2 * kPackets; ++n) {
      sender.write();
      relay.run(0);
      relay.run(1);
      packets += receiver.read();
    }
    return packets;
  }

  TwoShards relay;
  Peer sender, receiver;
};

}  // namespace

TEST("a wake-up that was lost is made up for by the timer, counted, and told by the check") {
  Blocked f;
  const int64_t before = f.sent();
  f.relay.run(1);
  const uint32_t came = f.receiver.read();
  CHECK(came > 0);
  CHECK_EQ(f.relay.slot(0).takeRoomBits(), 2u);  // here it is lost
  f.relay.run(0);
  CHECK_EQ(f.sent(), before);
  CHECK_EQ(f.lost(), 0);
  const std::vector<std::string> violations = f.relay.violations(0);
  CHECK_EQ(violations.size(), 1u);
  if (!violations.empty()) CHECK(violations[0].find("no wake-up is on its way") != std::string::npos);
  f.relay.tick(0);
  CHECK_EQ(f.lost(), 1);
  CHECK(f.sent() > before);
  CHECK_EQ(came + f.settle(), kPackets);
  CHECK_EQ(f.lost(), 1);
  CHECK_EQ(f.relay.violations(0).size(), 0u);
}

TEST("requests of the control plane are handled in bounded steps, in order, and before the shard sleeps") {
  TwoShards relay;
  constexpr uint32_t kKeys = 5000;
  const auto requests = [&relay](bool on) {
    for (uint32_t n = 0; n < kKeys; ++n) {
      Mail mail{.kind = Mail::Kind::kSetForwarder};
      mail.key = frames::keyOf(1'000'000 + n);
      mail.on = on;
      relay.slot(0).post(std::move(mail));
    }
  };
  requests(true);
  const int64_t before = relay.get(0, Counter::turns);
  relay.run(0);
  CHECK_EQ(relay.get(0, Counter::clients_total), kKeys);
  CHECK(relay.get(0, Counter::turns) - before >= kKeys / 256);
  requests(false);
  requests(true);
  relay.run(0);
  CHECK_EQ(relay.get(0, Counter::clients_total), kKeys);
  CHECK(relay.slot(0).trySleep());
}

TEST("a client that is still to be adopted when its shard ends is told so") {
  auto relay = std::make_unique<TwoShards>();
  for (uint32_t n = 0; n < 1000; ++n) {
    Mail mail{.kind = Mail::Kind::kAdopt};
    mail.adoption.id = n + 1;
    mail.adoption.notify = true;
    relay->slot(1).post(std::move(mail));
  }
  CHECK_EQ(relay->ends(1), 1000u);
}

TEST("a wake-up that is on its way is not lost, however often the timer looks") {
  Blocked f;
  f.relay.tick(0);  // no room yet
  f.relay.run(1);
  const uint32_t came = f.receiver.read();
  f.relay.tick(0);  // it has come, and nobody has looked at it
  f.relay.tick(0);
  CHECK_EQ(came + f.settle(), kPackets);
  CHECK_EQ(f.lost(), 0);
}
