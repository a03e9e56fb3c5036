// Histograms, estimates and averages that shards keep for the metrics.
#include <cmath>
#include <string>

#include "check.h"
#include "frames.h"
#include "native/core/counters.h"
#include "native/core/hyperloglog.h"
#include "native/core/queue_duration.h"
#include "native/core/send_queue.h"
#include "native/core/sender_set.h"
#include "native/io/relay_core.h"

using namespace derplane;

namespace {

struct Values {
  int64_t values[kCounterCount] = {};
  Counters counters{values};

  int64_t operator[](const std::string& wanted) const {
    for (uint32_t i = 0; i < kCounterCount; ++i) {
      char name[128];
      counterName(i, name, sizeof name);
      if (wanted == name) return values[i];
    }
    check::fail(__FILE__, __LINE__, "no counter " + wanted);
    return -1;
  }
};

bool near(double a, double b) { return std::abs(a - b) < 1e-9; }

}  // namespace

TEST("a histogram counts each value in the first bucket whose bound it does not exceed") {
  Values v;
  for (const uint32_t frames : {1u, 1u, 10u, 11u, 15u, 16u, 100u, 101u, 5000u}) v.counters.observeWrite(frames);
  CHECK_EQ(v["buffered_write_frames.le.0"], 0);
  CHECK_EQ(v["buffered_write_frames.le.1"], 2);
  CHECK_EQ(v["buffered_write_frames.le.10"], 1);
  CHECK_EQ(v["buffered_write_frames.le.15"], 2);
  CHECK_EQ(v["buffered_write_frames.le.20"], 1);
  CHECK_EQ(v["buffered_write_frames.le.100"], 1);
  CHECK_EQ(v["buffered_write_frames.le.+Inf"], 2);
  CHECK_EQ(v["buffered_write_frames.sum"], 1 + 1 + 10 + 11 + 15 + 16 + 100 + 101 + 5000);
}

TEST("a batch of presence counts its changes and its rounds, and nothing else moves") {
  Values v;
  v.counters.observeMeshBatch(3);
  v.counters.observeMeshBatch(1001, 9);
  CHECK_EQ(v["mesh_update_batch_size.le.5"], 1);
  CHECK_EQ(v["mesh_update_batch_size.le.+Inf"], 1);
  CHECK_EQ(v["mesh_update_batch_size.sum"], 1004);
  CHECK_EQ(v["mesh_update_loop_count.le.1"], 1);
  CHECK_EQ(v["mesh_update_loop_count.le.10"], 1);
  CHECK_EQ(v["mesh_update_loop_count.sum"], 10);
  int64_t sum = 0;
  for (const int64_t value : v.values) sum += value;
  CHECK_EQ(sum, 4 + 1004 + 10);
}

TEST("a round-trip time falls into the bucket of derper") {
  const auto name = [](uint64_t microseconds) {
    return std::string(kRttBucketNames[static_cast<uint32_t>(rttBucketOf(microseconds))]);
  };
  CHECK_EQ(name(0), "10ms");
  CHECK_EQ(name(10'000), "10ms");
  CHECK_EQ(name(10'001), "20ms");
  CHECK_EQ(name(99'999), "100ms");
  CHECK_EQ(name(250'000), "250ms");
  CHECK_EQ(name(500'000), "500ms");
  CHECK_EQ(name(500'001), "inf");
  Values v;
  v.counters.rtt(RttBucket::non_tcp);
  v.counters.rtt(RttBucket::error);
  CHECK_EQ(v["tcp_rtt.non-tcp"], 1);
  CHECK_EQ(v["tcp_rtt.error"], 1);
}

TEST("the average of queue times gives each packet a tenth, those that never waited too") {
  QueueDuration average;
  average.didNotWait(1'000'000);
  CHECK_EQ(average.average(), 0.0);
  average.waited(100);
  CHECK(near(average.average(), 10));
  average.waited(50);
  CHECK(near(average.average(), 14));
  average.didNotWait(2);
  CHECK(near(average.average(), 14 * 0.81));
  average.didNotWait(1000);
  CHECK_EQ(average.average(), 0.0);
}

TEST("packets count the time in the backlog when they leave it, dropped at its head or written") {
  Values v;
  BlockPool blocks;
  QueueShared shared{v.counters, blocks};
  shared.depth = 2;
  SendQueue queue;
  Key source;
  source.bytes[0] = 1;
  const auto frame = frames::recvPacket(source, frames::Bytes(100));
  const auto put = [&](uint64_t now) {
    shared.now_ms = now;
    queue.append(shared, frame.data(), static_cast<uint32_t>(frame.size()), PieceKind::kRecvPackets);
    CHECK(queue.spill(shared));
    shared.pieces.reset();
  };
  put(1000);
  put(1010);
  CHECK_EQ(shared.durations.average(), 0.0);
  put(1100);  // drops the first, 100 ms old
  CHECK(near(shared.durations.average(), 10));
  shared.now_ms = 1200;
  CHECK_EQ(queue.advance(shared, 2 * frame.size()), 2u);  // 190 and 100 ms old
  CHECK(near(shared.durations.average(), (10 * 0.9 + 19) * 0.9 + 10));
  queue.clear(shared, DropReason::gone_disconnected);
}

TEST("frames that the kernel took of a piece that stays behind are told apart") {
  Values v;
  BlockPool blocks;
  QueueShared shared{v.counters, blocks};
  SendQueue queue;
  Key source;
  source.bytes[0] = 1;
  const auto one = frames::recvPacket(source, frames::Bytes(100));
  frames::Bytes three;
  for (int i = 0; i < 3; ++i) three.insert(three.end(), one.begin(), one.end());
  for (size_t at = 0; at < three.size(); at += one.size()) {
    queue.append(shared, three.data() + at, static_cast<uint32_t>(one.size()), PieceKind::kRecvPackets);
  }
  CHECK_EQ(queue.advance(shared, 2 * one.size() + 1), 0u);
  CHECK(queue.spill(shared));
  CHECK_EQ(shared.late_frames, 2u);
  queue.clear(shared, DropReason::gone_disconnected);
}

TEST("an estimate of distinct hashes is right within 5%, from one to a million, and repeats do not count") {
  uint64_t state = 88172645463325252;
  const auto next = [&] {  // splitmix64
    uint64_t z = (state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  };
  HyperLogLog sketch;
  CHECK_EQ(sketch.estimate(), 0u);
  uint32_t shown = 0;
  for (const uint32_t wanted : {1u, 10u, 1000u, 5000u, 20'000u, 100'000u, 1'000'000u}) {
    check::note(std::to_string(wanted) + " hashes");
    for (; shown < wanted; ++shown) {
      const uint64_t hash = next();
      sketch.add(hash);
      sketch.add(hash);
    }
    const auto estimate = static_cast<double>(sketch.estimate());
    CHECK(estimate > wanted * 0.95 - 1);
    CHECK(estimate < wanted * 1.05 + 1);
  }
  check::note("");
}

TEST("a client's senders are counted exactly up to 4,096 and estimated beyond") {
  SenderSet set;
  HashSeed seed;
  const auto note = [&](uint32_t n) {
    Key key;
    std::memcpy(key.bytes, &n, sizeof n);
    const uint64_t sender = hashKey(seed, key.bytes);
    if (set.note(sender) != SenderSet::Noted::kTooMany) return;
    set.becomeMany(std::make_unique<ManySenders>());
    set.note(sender);
  };
  for (uint32_t n = 0; n < SenderSet::kMaxSenders; ++n) note(n);
  CHECK_EQ(set.size(), SenderSet::kMaxSenders);
  for (uint32_t n = 0; n < 50'000; ++n) note(n);
  CHECK(set.size() > 47'500);
  CHECK(set.size() < 52'500);
}

TEST("connections wait until a handshake thread takes them up") {
  RelayConfig config;
  const auto core = RelayCore::create(std::move(config));
  core->startHandshake({1, HandshakeStart::kRequest});
  CHECK_EQ(core->waitingHandshakes(), 1u);
  const auto inbox = std::make_shared<HandshakeInbox>();
  core->addInbox(inbox);
  core->startHandshake({2, HandshakeStart::kRequest});
  CHECK_EQ(core->waitingHandshakes(), 2u);
  CHECK_EQ(inbox->take().size(), 2u);
  CHECK_EQ(core->waitingHandshakes(), 0u);
}
