// The receive limit: what a router charges for each frame, and when a client that exceeds its bucket may go on.
#include <vector>

#include "check.h"
#include "frames.h"
#include "native/core/router.h"

using namespace derplane;
using frames::Bytes;
using frames::operator+;

namespace {

constexpr uint32_t kBucket = 65'568;  // the least that a bucket holds, and the most that a frame is charged
constexpr uint64_t kStart = 1'000'000;

struct NoEvents final : RouterEvents {
  bool forwardToControl(const Key&, const Key&, const uint8_t*, uint32_t) override { return false; }
};

// One router and one client, fed by hand.
struct Limited {
  explicit Limited(bool mesh = false) : router(RouterConfig{}, Counters(values), events) {
    router.setNow(kStart);
    Router::Adoption adoption;
    adoption.key = frames::keyOf(1);
    adoption.mesh = mesh;
    const Bytes first = frames::frame(FrameType::kServerInfo, {});
    client = router.adopt(adoption, first.data(), static_cast<uint32_t>(first.size()));
  }

  // Feeds a copy of `bytes`, as a shard does with what it read or kept.
  ParseResult feed(const Bytes& bytes) {
    fed = bytes;
    return router.consume(*client, fed.data(), static_cast<uint32_t>(fed.size()));
  }

  // What a shard does when the time has come: the same bytes again.
  ParseResult resume(const Bytes& bytes) {
    client->throttled_until_ms = 0;
    return feed(bytes);
  }

  int64_t waited() { return router.counters().get(Counter::rate_limit_per_client_waited); }
  int64_t pings() { return router.counters().get(Counter::got_ping); }

  int64_t values[kCounterCount] = {};
  NoEvents events;
  Router router;
  Client* client;
  Bytes fed;
};

// A frame that is charged `length`.
Bytes unknown(uint32_t length) { return frames::frame(FrameType{0x66}, Bytes(length)); }

}  // namespace

TEST("no limit, no waiting") {
  Limited t;
  for (int n = 0; n < 100; ++n) CHECK(t.feed(unknown(60'000)).status == ParseStatus::kPartial);
  CHECK_EQ(t.waited(), 0);
}

TEST("a full bucket passes to its last byte, and not one more") {
  Limited t;
  t.router.setRateLimit(1000, kBucket);
  CHECK(t.feed(unknown(kBucket - 8) + frames::ping(1)).status == ParseStatus::kPartial);
  CHECK_EQ(t.pings(), 1);
  const ParseResult result = t.feed(unknown(1));
  CHECK(result.status == ParseStatus::kThrottled);
  CHECK_EQ(result.consumed, 0u);
  CHECK_EQ(t.waited(), 1);
}

TEST("a frame that waits is paid once, and passes when its debt is") {
  Limited t;
  t.router.setRateLimit(1000, kBucket);
  t.feed(unknown(kBucket));
  const Bytes ping = frames::ping(1);
  CHECK(t.feed(ping).status == ParseStatus::kThrottled);
  // Eight bytes at a byte a millisecond.
  CHECK(t.client->throttled_until_ms >= kStart + 8);
  CHECK(t.client->throttled_until_ms <= kStart + 10);
  t.router.setNow(t.client->throttled_until_ms);
  CHECK(t.resume(ping).status == ParseStatus::kPartial);
  CHECK_EQ(t.pings(), 1);
  CHECK_EQ(t.waited(), 1);
}

TEST("what a client may send over a long time is its bucket and the rate") {
  Limited t;
  t.router.setRateLimit(100'000, kBucket);
  const Bytes frame = unknown(1000);
  uint64_t sent = 0;
  for (uint64_t now = kStart; now < kStart + 60'000;) {
    if (t.feed(frame).status == ParseStatus::kThrottled) {
      now = t.client->throttled_until_ms;
      t.router.setNow(now);
      t.resume(frame);
    }
    sent += 1000;
  }
  CHECK(sent >= 6'000'000);
  CHECK(sent <= 6'000'000 + kBucket + 2000);
}

TEST("any frame is charged its length field, at most 65,568, its header nothing") {
  const struct {
    Bytes frame;
    uint32_t charge;
  } cases[] = {
      {unknown(0), 0},
      {unknown(1), 1},
      {unknown(kBucket), kBucket},
      {frames::ping(1), 8},
      {frames::ping(1, 1000), 1000},
      {frames::sendPacket(frames::keyOf(2), Bytes(100)), 132},
      {frames::sendPacket(frames::keyOf(2), Bytes(kMaxPacketSize)), kBucket},
      {frames::frame(FrameType::kNotePreferred, {1}), 1},
  };
  for (const auto& [frame, charge] : cases) {
    Limited t;
    t.router.setRateLimit(1, 2 * kBucket);
    CHECK(t.feed(frame + frame).status == ParseStatus::kPartial);
    CHECK_EQ(static_cast<int64_t>(t.client->receive_tokens), int64_t{2} * (kBucket - charge));
  }
}

TEST("a longer unknown frame is charged no more than the largest packet") {
  Limited t;
  t.router.setRateLimit(1, kBucket);
  Bytes header(kFrameHeaderSize);
  putFrameHeader(header.data(), FrameType{0x66}, 100 << 20);
  CHECK(t.feed(header).status == ParseStatus::kPartial);
  CHECK_EQ(static_cast<int64_t>(t.client->receive_tokens), 0);
  // Its body was paid with the header.
  for (int n = 0; n < 1600; ++n) CHECK(t.feed(Bytes(64 << 10)).status == ParseStatus::kPartial);
  CHECK_EQ(t.waited(), 0);
  CHECK(t.feed(frames::ping(1)).status == ParseStatus::kThrottled);
}

TEST("a frame is charged at its header: bytes that come later cost nothing") {
  Limited t;
  t.router.setRateLimit(1, kBucket);
  const Bytes ping = frames::ping(1, 100);
  for (size_t part = kFrameHeaderSize; part <= ping.size(); ++part) {
    t.feed(Bytes(ping.begin(), ping.begin() + static_cast<ptrdiff_t>(part)));
  }
  CHECK_EQ(t.pings(), 1);
  CHECK_EQ(static_cast<int64_t>(t.client->receive_tokens), int64_t{kBucket} - 100);
}

TEST("a burst below the largest frame is raised to it") {
  for (const uint64_t burst : {0U, 1U, 65'567U}) {
    Limited t;
    t.router.setRateLimit(1, burst);
    CHECK(t.feed(unknown(kBucket)).status == ParseStatus::kPartial);
    CHECK(t.feed(unknown(1)).status == ParseStatus::kThrottled);
  }
}

TEST("a bucket never holds more than the burst") {
  Limited t;
  t.router.setRateLimit(1'000'000, kBucket);
  t.feed(unknown(1));
  t.router.setNow(kStart + 3'600'000);
  CHECK(t.feed(unknown(kBucket)).status == ParseStatus::kPartial);
  CHECK(t.feed(unknown(1)).status == ParseStatus::kThrottled);
}

TEST("a limit set again fills every bucket; one that is lifted lets a waiting frame pass") {
  Limited t;
  t.router.setRateLimit(1, kBucket);
  t.feed(unknown(kBucket));
  CHECK(t.feed(frames::ping(1)).status == ParseStatus::kThrottled);
  t.router.setRateLimit(1, kBucket);
  CHECK(t.resume(frames::ping(1)).status == ParseStatus::kPartial);
  CHECK(t.feed(unknown(kBucket)).status == ParseStatus::kPartial);
  CHECK(t.feed(frames::ping(2)).status == ParseStatus::kThrottled);
  t.router.setRateLimit(0, 0);
  CHECK(t.resume(frames::ping(2) + unknown(kBucket) + unknown(kBucket)).status == ParseStatus::kPartial);
  CHECK_EQ(t.pings(), 2);
}

TEST("mesh peers are exempt") {
  Limited t(true);
  t.router.setRateLimit(1, kBucket);
  for (int n = 0; n < 100; ++n) CHECK(t.feed(unknown(kBucket)).status == ParseStatus::kPartial);
  CHECK_EQ(t.waited(), 0);
}

TEST("rates at the ends of their range wait for a sensible time") {
  for (const uint64_t rate : {uint64_t{1}, uint64_t{1} << 53}) {
    Limited t;
    t.router.setRateLimit(rate, uint64_t{1} << 53);
    CHECK(t.feed(unknown(kBucket)).status == ParseStatus::kPartial);
    t.router.setRateLimit(rate, kBucket);
    t.feed(unknown(kBucket));
    CHECK(t.feed(unknown(kBucket)).status == ParseStatus::kThrottled);
    const uint64_t wait = t.client->throttled_until_ms - kStart;
    CHECK(wait >= 1 && wait <= uint64_t{kBucket} * 1000 + 1);
  }
}
