// Limits and labels that admission gave a client: the lower limit counts, the client hears of it, its label has
// figures.
#include <string>

#include "check.h"
#include "frames.h"
#include "native/core/router.h"

using namespace derplane;
using frames::Bytes;
using frames::operator+;

namespace {

constexpr uint64_t kBucket = 65'568;
constexpr uint64_t kStart = 1'000'000;

struct NoEvents final : RouterEvents {
  bool forwardToControl(const Key&, const Key&, const uint8_t*, uint32_t) override { return false; }
};

struct Limited {
  explicit Limited(uint64_t own_rate, uint8_t label = kNoLabel) : router(RouterConfig{}, Counters(values), events) {
    router.setNow(kStart);
    client = add(1, own_rate, label);
    output();
  }

  Client* add(uint32_t key, uint64_t own_rate, uint8_t label) {
    Router::Adoption adoption;
    adoption.key = frames::keyOf(key);
    adoption.receive_rate = own_rate;
    adoption.label = label;
    const Bytes first = frames::frame(FrameType::kServerInfo, {});
    return router.adopt(adoption, first.data(), static_cast<uint32_t>(first.size()));
  }

  ParseStatus feed(const Bytes& bytes) {
    fed = bytes;
    client->throttled_until_ms = 0;
    return router.consume(*client, fed.data(), static_cast<uint32_t>(fed.size())).status;
  }

  // A client that sends without end is throttled again and again.
  void beSlowed() {
    for (int n = 0; n < 4; ++n) {
      if (feed(frames::frame(FrameType{0x66}, Bytes(60'000))) == ParseStatus::kThrottled) break;
    }
    client->header_counted = false;
  }

  // Texts of the Health frames that the client got since the last call.
  std::vector<std::string> output() {
    std::vector<std::string> healths;
    while (Client* touched = router.takeTouched()) {
      iovec iov[64];
      const uint32_t count = touched->queue.gather(router.queues(), iov, 64);
      uint64_t sent = 0;
      for (uint32_t i = 0; i < count; ++i) {
        const auto* bytes = static_cast<const uint8_t*>(iov[i].iov_base);
        sent += iov[i].iov_len;
        for (size_t at = 0; at < iov[i].iov_len; at += kFrameHeaderSize + frameLength(bytes + at)) {
          if (frameType(bytes + at) != FrameType::kHealth) continue;
          healths.emplace_back(reinterpret_cast<const char*>(bytes + at + kFrameHeaderSize), frameLength(bytes + at));
        }
      }
      touched->queue.advance(router.queues(), sent);
    }
    router.endTurn();
    return healths;
  }

  std::vector<std::string> tickAt(uint64_t ms) {
    router.setNow(kStart + ms);
    router.tick();
    return output();
  }

  int64_t get(LabelCounter c, uint8_t label = 1) { return router.counters().get(label, c); }

  int64_t values[kCounterCount] = {};
  NoEvents events;
  Router router;
  Client* client;
  Bytes fed;
};

uint64_t waitOf(Limited& t) {
  const Bytes frame = frames::frame(FrameType{0x66}, Bytes(60'000));
  while (t.feed(frame) != ParseStatus::kThrottled) {
  }
  return t.client->throttled_until_ms - t.router.now();
}

}  // namespace

TEST("of the relay's limit and the client's own the lower one counts") {
  // The second frame leaves a debt of 120,000 - 65,568 bytes.
  constexpr uint64_t kDebt = 120'000 - kBucket;
  Limited own(1000);
  CHECK_EQ(waitOf(own), kDebt + 1);
  Limited lower(1000);
  lower.router.setRateLimit(2000, kBucket);
  CHECK_EQ(waitOf(lower), kDebt + 1);
  Limited higher(4000);
  higher.router.setRateLimit(2000, kBucket);
  CHECK_EQ(waitOf(higher), kDebt / 2 + 1);
}

TEST("with a limit of its own a client may send a second's worth at once") {
  Limited t(100'000);
  CHECK(t.feed(frames::frame(FrameType{0x66}, Bytes(60'000))) == ParseStatus::kPartial);
  CHECK(t.feed(frames::frame(FrameType{0x66}, Bytes(40'000))) == ParseStatus::kPartial);
  CHECK(t.feed(frames::ping(1)) == ParseStatus::kThrottled);
}

TEST("a client that is slowed down is told so, and after 10 s without slowing that it is over") {
  Limited t(1000);
  CHECK(t.output().empty());
  t.beSlowed();
  const auto told = t.output();
  CHECK_EQ(told.size(), 1u);
  CHECK(told[0].find("1000 bytes per second") != std::string::npos);
  t.router.setNow(kStart + 5000);
  t.beSlowed();
  CHECK(t.output().empty());
  CHECK(t.tickAt(14'999).empty());
  const auto over = t.tickAt(15'000);
  CHECK_EQ(over.size(), 1u);
  CHECK_EQ(over[0], std::string());
  CHECK(t.tickAt(30'000).empty());
}

TEST("notices come once a minute at most") {
  Limited t(1000);
  t.beSlowed();
  CHECK_EQ(t.output().size(), 1u);
  CHECK_EQ(t.tickAt(10'000).size(), 1u);
  t.router.setNow(kStart + 59'999);
  t.beSlowed();
  CHECK(t.output().empty());
  CHECK(t.tickAt(60'000).empty());
  t.beSlowed();
  CHECK_EQ(t.output().size(), 1u);
}

TEST("a client that leaves while it is slowed down leaves nothing behind") {
  Limited t(1000);
  t.beSlowed();
  t.router.close(*t.client, CloseReason::eof);
  t.output();
  t.router.destroy(t.router.takeClosing());
  CHECK(t.tickAt(20'000).empty());
  CHECK(t.router.check().empty());
}

TEST("a label counts its clients, what they send and get, and what is dropped of it") {
  Limited t(0, 1);
  Client* other = t.add(2, 0, 2);
  const Bytes packet(100);
  t.feed(frames::sendPacket(frames::keyOf(2), packet) + frames::sendPacket(frames::keyOf(9), packet));
  t.output();
  CHECK_EQ(t.get(LabelCounter::clients), 1);
  CHECK_EQ(t.get(LabelCounter::packets_received), 2);
  CHECK_EQ(t.get(LabelCounter::bytes_received), 200);
  CHECK_EQ(t.get(LabelCounter::packets_dropped), 1);
  CHECK_EQ(t.get(LabelCounter::bytes_dropped), 100);
  CHECK_EQ(t.get(LabelCounter::packets_sent, 2), 1);
  CHECK_EQ(t.get(LabelCounter::bytes_sent, 2), 100);
  CHECK_EQ(t.get(LabelCounter::packets_received, 2), 0);
  // What waits for a client that leaves is dropped of its label.
  t.feed(frames::sendPacket(frames::keyOf(2), packet));
  t.router.close(*other, CloseReason::eof);
  t.router.destroy(t.router.takeClosing());
  CHECK_EQ(t.get(LabelCounter::packets_dropped, 2), 1);
  CHECK_EQ(t.get(LabelCounter::clients, 2), 0);
}
