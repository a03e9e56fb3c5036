#include "native/core/send_queue.h"

#include <deque>
#include <map>
#include <set>
#include <string>

#include "check.h"
#include "frames.h"

using namespace derplane;
using frames::Bytes;

namespace {

Bytes gather(const SendQueue& queue, const QueueShared& shared, uint32_t max = 4096) {
  std::vector<iovec> iov(max);
  const uint32_t n = queue.gather(shared, iov.data(), max);
  Bytes bytes;
  for (uint32_t i = 0; i < n; ++i) {
    const auto* p = static_cast<const uint8_t*>(iov[i].iov_base);
    CHECK(iov[i].iov_len > 0);
    bytes.insert(bytes.end(), p, p + iov[i].iov_len);
  }
  return bytes;
}

// A queue with all that it leans on. Frames of a turn live in `memory` until the turn's end, next to each other.
struct Fixture {
  int64_t values[kCounterCount] = {};
  Counters counters{values};
  BlockPool blocks;
  QueueShared shared{counters, blocks};
  SendQueue queue;
  std::deque<Bytes> apart;
  Bytes memory = Bytes(1 << 20);
  size_t used = 0;

  ~Fixture() { queue.clear(shared, DropReason::gone_disconnected); }

  static PieceKind kindOf(const Bytes& frame) {
    if (frameType(frame.data()) == FrameType::kRecvPacket) return PieceKind::kRecvPackets;
    return frameType(frame.data()) == FrameType::kForwardPacket ? PieceKind::kForwardPackets : PieceKind::kControl;
  }

  void put(const Bytes& frame) {
    uint8_t* at = memory.data() + used;
    CHECK(used + frame.size() <= memory.size());
    std::memcpy(at, frame.data(), frame.size());
    used += frame.size();
    queue.append(shared, at, static_cast<uint32_t>(frame.size()), kindOf(frame));
  }

  bool endTurn() {
    const bool ok = queue.spill(shared);
    shared.pieces.reset();
    std::memset(memory.data(), 0xee, used);  // whoever still points here is found out
    used = 0;
    return ok;
  }

  Bytes sendAll() {
    Bytes bytes = gather(queue, shared);
    queue.advance(shared, bytes.size());
    CHECK(queue.empty());
    return bytes;
  }

  int64_t get(Counter c) const { return counters.get(c); }
  int64_t dropped() const {
    int64_t sum = 0;
    for (uint32_t i = kDropPacketsBase; i < kDropBytesBase; ++i) sum += values[i];
    return sum;
  }
};

const Key kSource = frames::keyOf(1);

Bytes data(uint32_t number, uint32_t size = 40) {
  Bytes packet(std::max<uint32_t>(size, 4), 0xaa);
  std::memcpy(packet.data(), &number, 4);
  return frames::recvPacket(kSource, packet);
}

Bytes disco(uint32_t number, uint32_t size = 62) { return frames::recvPacket(kSource, frames::disco(size, number)); }

uint32_t numberIn(const Bytes& frame) {
  const uint8_t* packet = frame.data() + kPacketFrameFixed;
  return looksLikeDisco(packet, static_cast<uint32_t>(frame.size()) - kPacketFrameFixed) ? frames::numberOf(packet + 6)
                                                                                         : frames::numberOf(packet);
}

bool isDiscoFrame(const Bytes& frame) {
  return looksLikeDisco(frame.data() + kPacketFrameFixed, static_cast<uint32_t>(frame.size()) - kPacketFrameFixed);
}

std::vector<Bytes> parse(const Bytes& bytes) {
  frames::Reader reader;
  reader.feed(bytes);
  std::vector<Bytes> all = reader.all();
  CHECK_EQ(reader.partial(), 0u);
  return all;
}

// A backlog of everything and a turn of everything: control, both queues, a frame begun, merged and single pieces.
void fillWithEverything(Fixture& f) {
  f.put(data(1));
  f.put(data(2));
  f.put(disco(3));
  f.queue.advance(f.shared, 20);
  f.put(frames::pong(7));
  f.put(data(4, 5));
  f.put(disco(5));
  f.put(disco(6, 70));
  f.endTurn();
  f.put(data(8));
  f.put(data(9, 4));
  f.put(frames::pong(10));
  f.put(frames::forwardPacket(kSource, kSource, Bytes(10)));
  f.put(disco(11));
}

}  // namespace

TEST("an empty queue owns nothing and gives nothing") {
  Fixture f;
  CHECK(f.queue.empty() && !f.queue.hasTurn() && !f.queue.hasBacklog());
  CHECK(gather(f.queue, f.shared).empty());
  CHECK_EQ(f.queue.advance(f.shared, 0), 0u);
  CHECK(f.endTurn());
  CHECK_EQ(f.queue.heldMemory(), 0u);
}

TEST("frames next to each other become one piece, others pieces of their own") {
  Fixture f;
  f.put(data(1));
  f.put(data(2));
  f.put(data(3));
  iovec iov[8];
  CHECK_EQ(f.queue.gather(f.shared, iov, 8), 1u);
  f.put(frames::pong(1));
  f.used += 8;
  f.put(frames::pong(2));
  CHECK_EQ(f.queue.gather(f.shared, iov, 8), 3u);
  CHECK_EQ(f.queue.gather(f.shared, iov, 2), 2u);
  CHECK_EQ(f.queue.advance(f.shared, gather(f.queue, f.shared).size()), 5u);
  CHECK(f.queue.empty());
  CHECK_EQ(f.get(Counter::packets_sent), 3);
  CHECK_EQ(f.get(Counter::bytes_sent), 120);
  CHECK_EQ(f.get(Counter::sent_pong), 2);
}

TEST("whatever number of bytes the kernel takes, the rest is exactly what it did not take") {
  Fixture reference;
  fillWithEverything(reference);
  const Bytes all = gather(reference.queue, reference.shared);
  for (size_t first = 0; first <= all.size(); ++first) {
    Fixture f;
    fillWithEverything(f);
    CHECK(gather(f.queue, f.shared) == all);
    f.queue.advance(f.shared, first);
    CHECK(gather(f.queue, f.shared) == Bytes(all.begin() + static_cast<ptrdiff_t>(first), all.end()));
    f.queue.advance(f.shared, all.size() - first);
    CHECK(f.queue.empty());
    CHECK_EQ(f.get(Counter::packets_sent), 10 - 1);
    CHECK_EQ(f.get(Counter::packets_forwarded_out), 1);
    CHECK_EQ(f.get(Counter::sent_pong), 2);
    CHECK_EQ(f.shared.bytes, 0u);
    CHECK_EQ(f.get(Counter::queue_bytes), 0);
  }
}

TEST("a gather cut short by its maximum is a prefix, in the order in which advance sends") {
  Fixture f;
  fillWithEverything(f);
  const Bytes all = gather(f.queue, f.shared);
  for (uint32_t max = 1; max < 12; ++max) {
    const Bytes some = gather(f.queue, f.shared, max);
    CHECK(some.size() <= all.size() && std::equal(some.begin(), some.end(), all.begin()));
  }
  Bytes one_by_one;
  while (!f.queue.empty()) {
    const Bytes next = gather(f.queue, f.shared, 1);
    one_by_one.insert(one_by_one.end(), next.begin(), next.end());
    f.queue.advance(f.shared, next.size());
  }
  CHECK(one_by_one == all);
}

TEST("a turn that ends at any byte leaves whole frames: nothing lost, nothing twice, the begun one first") {
  Bytes turn;
  for (const Bytes& frame : {data(1), data(2), disco(3), data(4), disco(5)}) turn = frames::operator+(turn, frame);
  for (size_t taken = 0; taken <= turn.size(); ++taken) {
    Fixture f;
    for (const Bytes& frame : {data(1), data(2), disco(3), data(4), disco(5)}) f.put(frame);
    Bytes stream = gather(f.queue, f.shared);
    CHECK(stream == turn);
    stream.resize(taken);
    f.queue.advance(f.shared, taken);
    CHECK(f.endTurn());
    CHECK_EQ(f.queue.hasBacklog(), taken < turn.size());
    CHECK_EQ(f.queue.heldMemory(), f.shared.bytes);
    const Bytes rest = f.sendAll();
    stream.insert(stream.end(), rest.begin(), rest.end());
    std::vector<uint32_t> of_kind[2];
    for (const Bytes& frame : parse(stream)) of_kind[isDiscoFrame(frame) ? 1 : 0].push_back(numberIn(frame));
    CHECK(of_kind[0] == (std::vector<uint32_t>{1, 2, 4}));
    CHECK(of_kind[1] == (std::vector<uint32_t>{3, 5}));
    CHECK_EQ(f.get(Counter::packets_sent), 5);
    CHECK_EQ(f.get(Counter::bytes_sent), 3 * 40 + 2 * 62);
    CHECK_EQ(f.dropped(), 0);
  }
}

TEST("a full queue drops its oldest packet for the newest, data and disco each by itself") {
  Fixture f;
  f.shared.depth = 4;
  for (uint32_t n = 0; n < 10; ++n) f.put(data(n));
  f.endTurn();
  CHECK_EQ(f.queue.queuedPackets(false), 4u);
  CHECK_EQ(f.counters.dropped(DropReason::queue_head, false), 6);
  f.put(disco(100));  // bulk does not push disco out
  for (uint32_t n = 10; n < 13; ++n) f.put(data(n));
  f.endTurn();
  CHECK_EQ(f.queue.queuedPackets(true), 1u);
  CHECK_EQ(f.counters.dropped(DropReason::queue_head, true), 0);
  for (uint32_t n = 101; n < 106; ++n) f.put(disco(n));
  f.endTurn();
  CHECK_EQ(f.queue.queuedPackets(true), 4u);
  CHECK_EQ(f.counters.dropped(DropReason::queue_head, true), 2);
  CHECK_EQ(f.counters.dropped(DropReason::queue_head, false), 9);
  std::vector<uint32_t> of_kind[2];
  for (const Bytes& frame : parse(f.sendAll())) of_kind[isDiscoFrame(frame) ? 1 : 0].push_back(numberIn(frame));
  CHECK(of_kind[0] == (std::vector<uint32_t>{9, 10, 11, 12}));
  CHECK(of_kind[1] == (std::vector<uint32_t>{102, 103, 104, 105}));
}

TEST("data and disco are sent by turns, control before both") {
  Fixture f;
  for (uint32_t n = 0; n < 3; ++n) f.put(data(n));
  for (uint32_t n = 10; n < 13; ++n) f.put(disco(n));
  f.put(frames::pong(1));
  f.endTurn();
  const std::vector<Bytes> sent = parse(f.sendAll());
  CHECK_EQ(sent.size(), 7u);
  CHECK(frameType(sent[0].data()) == FrameType::kPong);
  for (size_t i = 2; i < sent.size(); ++i) CHECK(isDiscoFrame(sent[i]) != isDiscoFrame(sent[i - 1]));
}

TEST("a frame that the kernel has begun is never dropped, however full the queue") {
  for (const uint32_t depth : {0u, 1u, 2u}) {
    Fixture f;
    f.shared.depth = depth;
    f.put(data(1));
    Bytes stream = gather(f.queue, f.shared);
    stream.resize(3);
    f.queue.advance(f.shared, 3);
    f.endTurn();
    for (uint32_t n = 2; n < 20; ++n) {
      f.put(data(n));
      f.endTurn();
    }
    const Bytes rest = f.sendAll();
    stream.insert(stream.end(), rest.begin(), rest.end());
    const std::vector<Bytes> sent = parse(stream);
    CHECK_EQ(sent.size(), 1 + depth);
    CHECK_EQ(numberIn(sent[0]), 1u);
    CHECK_EQ(f.dropped() + f.get(Counter::packets_sent), 19);
  }
}

TEST("beyond the byte budget of the shard packets are dropped as queue_tail, control frames are not") {
  Fixture f;
  Fixture probe;
  probe.put(data(0, 1000));
  probe.endTurn();
  f.shared.max_bytes = 3 * probe.shared.bytes;  // what three such packets hold
  for (uint32_t n = 0; n < 5; ++n) f.put(data(n, 1000));
  f.put(frames::pong(1));
  CHECK(f.endTurn());
  CHECK_EQ(f.queue.queuedPackets(false), 3u);
  CHECK_EQ(f.counters.dropped(DropReason::queue_tail, false), 2);
  const std::vector<Bytes> sent = parse(f.sendAll());
  CHECK_EQ(sent.size(), 4u);
  CHECK_EQ(f.shared.bytes, 0u);
}

TEST("the byte budget is memory: many tiny packets cannot hold more than it allows") {
  Fixture f;
  f.shared.depth = 10'000;
  f.shared.max_bytes = 100 * (BlockPool::kSmall + sizeof(Block));
  for (uint32_t n = 0; n < 5'000; ++n) f.put(data(n, 4));
  f.endTurn();
  CHECK(f.queue.queuedPackets(false) <= 100);
  CHECK(f.queue.queuedPackets(false) > 50);
}

TEST("more control frames than a client may have waiting are refused, and what was queued stays whole") {
  Fixture f;
  constexpr uint32_t kFit = kMaxControlBytes / kPongFrameSize;
  for (uint32_t n = 0; n < kFit; ++n) f.put(frames::pong(n));
  CHECK(f.endTurn());
  CHECK_EQ(f.queue.controlBytes(), kFit * kPongFrameSize);
  f.put(frames::pong(0));
  f.put(data(1));
  CHECK(!f.endTurn());
  CHECK_EQ(f.queue.queuedPackets(false), 1u);
  CHECK_EQ(parse(f.sendAll()).size(), kFit + 1);
  CHECK_EQ(f.queue.controlBytes(), 0u);
}

TEST("clear drops everything under its reason, frames that the kernel has are sent") {
  Fixture f;
  fillWithEverything(f);
  f.queue.clear(f.shared, DropReason::write_error);
  CHECK(f.queue.empty());
  CHECK_EQ(f.shared.bytes, 0u);
  CHECK_EQ(f.get(Counter::queue_bytes), 0);
  CHECK_EQ(f.counters.dropped(DropReason::write_error, false), 2 + 1 + 2 + 1);
  CHECK_EQ(f.counters.dropped(DropReason::write_error, true), 1 + 2 + 1);

  Fixture g;
  g.put(data(1));
  g.put(data(2));
  g.put(data(3));
  g.queue.advance(g.shared, data(1).size() + 10);
  g.queue.clear(g.shared, DropReason::gone_disconnected);
  CHECK_EQ(g.get(Counter::packets_sent), 1);
  CHECK_EQ(g.counters.dropped(DropReason::gone_disconnected, false), 2);
}

TEST("packets of any size survive, empty and largest included") {
  Fixture f;
  f.put(frames::recvPacket(kSource, {}));
  f.put(frames::recvPacket(kSource, Bytes(kMaxPacketSize, 5)));
  f.put(frames::recvPacket(kSource, Bytes(BlockPool::kSmall - kPacketFrameFixed, 6)));
  f.put(frames::recvPacket(kSource, Bytes(BlockPool::kSmall - kPacketFrameFixed + 1, 7)));
  const Bytes before = gather(f.queue, f.shared);
  f.endTurn();
  CHECK(f.sendAll() == before);
}

TEST("after any history of turns and kernel moods: whole frames, order per queue, sent plus dropped is put in") {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    check::note("seed " + std::to_string(seed));
    check::Random random(seed);
    Fixture f;
    f.shared.depth = 1 + random.below(5);
    frames::Reader reader;
    uint32_t number = 0, put_packets = 0, put_pongs = 0, got_packets = 0, got_pongs = 0;
    int64_t last[2] = {-1, -1};
    const auto readAll = [&] {
      for (const Bytes& frame : reader.all()) {
        if (frameType(frame.data()) == FrameType::kPong) {
          ++got_pongs;
          continue;
        }
        ++got_packets;
        int64_t& before = last[isDiscoFrame(frame) ? 1 : 0];
        CHECK(int64_t{numberIn(frame)} > before);
        before = numberIn(frame);
      }
    };
    for (uint32_t turn = 0; turn < 2'000; ++turn) {
      for (uint32_t n = random.below(8); n > 0; --n) {
        if (random.oneIn(4)) f.used += random.below(3);
        const uint32_t kind = random.below(5);
        if (kind == 0) {
          f.put(frames::pong(number));
          ++put_pongs;
        } else {
          f.put(kind == 1 ? disco(number, 62 + random.below(100)) : data(number, 4 + random.below(3'000)));
          ++put_packets;
        }
        ++number;
      }
      for (uint32_t writes = random.below(3); writes > 0; --writes) {
        Bytes bytes = gather(f.queue, f.shared, 1 + random.below(20));
        bytes.resize(random.oneIn(3) ? bytes.size() : random.below(static_cast<uint32_t>(bytes.size() + 1)));
        reader.feed(bytes);
        f.queue.advance(f.shared, bytes.size());
      }
      CHECK(f.endTurn());
      CHECK(f.queue.queuedPackets(false) <= f.shared.depth);
      CHECK(f.queue.queuedPackets(true) <= f.shared.depth);
      CHECK_EQ(f.queue.heldMemory(), f.shared.bytes);
      readAll();
    }
    reader.feed(f.sendAll());
    readAll();
    CHECK_EQ(reader.partial(), 0u);
    CHECK_EQ(got_pongs, put_pongs);
    CHECK_EQ(f.get(Counter::sent_pong), put_pongs);
    CHECK_EQ(f.get(Counter::packets_sent), got_packets);
    CHECK_EQ(got_packets + f.dropped(), put_packets);
    CHECK_EQ(f.shared.bytes, 0u);
    CHECK_EQ(f.get(Counter::queue_bytes), 0);
  }
}
