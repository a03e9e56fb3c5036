// Listings of clients: filter, order, pages, and what they count, held against a list that is sorted in one go.
#include "native/core/client_listing.h"

#include <algorithm>
#include <vector>

#include "check.h"
#include "relay_model.h"

using namespace derplane;
using frames::Bytes;
using frames::operator+;

namespace {

constexpr uint32_t kAllSlots = UINT32_MAX;

struct NoEvents final : RouterEvents {
  bool forwardToControl(const Key&, const Key&, const uint8_t*, uint32_t) override { return false; }
};

// One router whose clients come by hand.
struct Listed {
  Listed() : router(RouterConfig{}, Counters(values), events) { router.setNow(1'000'000); }

  Client& add(const Key& key, const char* app = "", bool mesh = false) {
    Router::Adoption adoption;
    adoption.key = key;
    adoption.app_name = app;
    adoption.mesh = mesh;
    adoption.number = ++last_number;
    adoption.connected_ns = 1000 + last_number / 2;  // two at a time
    adoption.address.ip[10] = adoption.address.ip[11] = 0xff;
    adoption.address.ip[12] = 10;
    adoption.address.ip[15] = static_cast<uint8_t>(last_number % 4);
    adoption.address.port = static_cast<uint16_t>(1000 + last_number);
    const Bytes first = frames::frame(FrameType::kServerInfo, {});
    return *router.adopt(adoption, first.data(), static_cast<uint32_t>(first.size()));
  }

  struct Page {
    std::vector<ClientRecord> records;
    uint64_t connections, keys, behind;
    std::vector<uint64_t> numbers() const {
      std::vector<uint64_t> all;
      for (const ClientRecord& record : records) all.push_back(record.number);
      return all;
    }
  };

  Page list(const ClientQuery& query, uint32_t step = kAllSlots) {
    ClientListing listing(std::make_shared<ClientQuery>(query));
    while (listing.step(router, step)) {
    }
    auto records = listing.finish(router);
    return {std::move(records), listing.connections(), listing.keys(), listing.behind()};
  }

  int64_t values[kCounterCount] = {};
  NoEvents events;
  Router router;
  uint64_t last_number = 0;
};

}  // namespace

TEST("every order, either way, gives pages that together are the whole list") {
  Listed t;
  for (uint32_t n = 0; n < 200; ++n) {
    Client& client = t.add(frames::keyOf(n % 61));
    client.received_packets = n % 7;
    client.received_bytes = n % 11;
  }
  for (uint8_t sort = 0; sort <= static_cast<uint8_t>(ClientSort::kTxPackets); ++sort) {
    for (const bool descending : {false, true}) {
      ClientQuery query{.sort = ClientSort{sort}, .descending = descending};
      const Listed::Page whole = t.list(query);
      CHECK_EQ(whole.connections, 200u);
      CHECK_EQ(whole.keys, 61u);
      CHECK(std::is_sorted(whole.records.begin(), whole.records.end(),
                           [&](const auto& a, const auto& b) { return query.compare(a, b) < 0; }));
      query.limit = 17;
      std::vector<uint64_t> paged;
      for (;;) {
        const Listed::Page page = t.list(query, 3);
        CHECK_EQ(page.connections, 200u);
        CHECK_EQ(page.behind, 200 - paged.size());
        for (const uint64_t number : page.numbers()) paged.push_back(number);
        if (page.behind <= query.limit) break;
        query.has_after = query.after_has_number = query.after_has_port = true;
        query.after = page.records.back();
      }
      CHECK(paged == whole.numbers());
    }
  }
}

TEST("a place without a number passes over all connections with its value, one without a port over all ports") {
  Listed t;
  for (uint32_t n = 0; n < 8; ++n) t.add(frames::keyOf(n)).received_bytes = n / 4;
  ClientQuery query{.sort = ClientSort::kRxBytes, .has_after = true};
  CHECK(t.list(query).numbers() == (std::vector<uint64_t>{5, 6, 7, 8}));
  query.after_has_number = true;
  query.after.number = 3;
  CHECK(t.list(query).numbers() == (std::vector<uint64_t>{4, 5, 6, 7, 8}));
  ClientQuery by_address{.sort = ClientSort::kAddress, .has_after = true};
  std::memcpy(by_address.after.ip, t.router.clientInSlot(1)->address.ip, 16);  // 10.0.0.2
  CHECK(t.list(by_address).numbers() == (std::vector<uint64_t>{3, 7}));
  by_address.descending = true;
  CHECK(t.list(by_address).numbers() == (std::vector<uint64_t>{5, 1, 8, 4}));
}

TEST("a key counts once, with whichever of its connections match") {
  Listed t;
  t.add(frames::keyOf(1), "a");
  t.add(frames::keyOf(1), "b");
  t.add(frames::keyOf(1), "a");
  t.add(frames::keyOf(2), "b");
  const Listed::Page a = t.list({.apps = {"a"}});
  CHECK_EQ(a.connections, 2u);
  CHECK_EQ(a.keys, 1u);
  const Listed::Page either = t.list({.apps = {"b", "c"}});
  CHECK_EQ(either.connections, 2u);
  CHECK_EQ(either.keys, 2u);
  const Listed::Page key = t.list({.filter = ClientFilter::kKey, .key = frames::keyOf(1)});
  CHECK_EQ(key.connections, 3u);
  CHECK_EQ(key.keys, 1u);
  CHECK_EQ(t.list({.filter = ClientFilter::kKey, .key = frames::keyOf(3)}).connections, 0u);
}

TEST("networks hold their own family only") {
  Listed t;
  t.add(frames::keyOf(1));  // 10.0.0.1
  t.add(frames::keyOf(2));  // 10.0.0.2
  ClientQuery query{.filter = ClientFilter::kPrefix};
  CHECK_EQ(t.list(query).connections, 0u);  // ::/0
  std::memcpy(query.prefix, t.router.clientInSlot(0)->address.ip, 16);
  for (const auto& [bits, count] : {std::pair{96u, 2u}, {104u, 2u}, {126u, 2u}, {127u, 1u}, {128u, 1u}}) {
    query.prefix_bits = bits;
    CHECK_EQ(t.list(query).connections, count);
  }
}

TEST("a step looks at no more slots than it may, and clients may leave between steps") {
  Listed t;
  for (uint32_t n = 0; n < 100; ++n) t.add(frames::keyOf(n));
  ClientListing listing(std::make_shared<ClientQuery>());
  CHECK(listing.step(t.router, 40));
  CHECK_EQ(listing.connections(), 40u);
  t.router.closePeer(frames::keyOf(10), CloseReason::peer_closed);
  t.router.closePeer(frames::keyOf(70), CloseReason::peer_closed);
  CHECK(listing.step(t.router, 40));
  CHECK(!listing.step(t.router, 40));
  CHECK_EQ(listing.connections(), 99u);
  CHECK_EQ(listing.finish(t.router).size(), 99u);
}

TEST("packets and bytes of each connection are counted on both sides") {
  model::Relay relay;
  model::Session& a = relay.connect(frames::keyOf(1));
  model::Session& b = relay.connect(frames::keyOf(2));
  relay.send(a, frames::sendPacket(frames::keyOf(2), Bytes(100)) + frames::sendPacket(frames::keyOf(2), Bytes(20)));
  relay.send(a, frames::sendPacket(frames::keyOf(3), Bytes(5)));
  relay.settle();
  CHECK_EQ(a.client->received_packets, 3u);
  CHECK_EQ(a.client->received_bytes, 125u);
  CHECK_EQ(a.client->queue.sentPackets(), 0u);
  CHECK_EQ(b.client->queue.sentPackets(), 2u);
  CHECK_EQ(b.client->queue.sentBytes(), 120u);
}
