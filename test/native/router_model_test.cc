// Random clients, frames, kernels and turns on one to four shards; every byte that a client gets is judged.
#include <map>
#include <set>
#include <string>
#include <utility>

#include "check.h"
#include "relay_model.h"

using namespace derplane;
using frames::Bytes;
using frames::operator+;
using model::Relay;
using model::Session;

namespace {

constexpr uint32_t kKeys = 24;
constexpr uint32_t kMagicAt = 70;  // where a packet says who sent it to whom, behind what may look like disco

// What a packet says about itself, so that its reader can judge it.
struct Stamp {
  uint32_t sender;  // index of the connection that sent it
  uint32_t source;  // key number
  uint32_t destination;
  uint32_t number;  // rises per sender, destination and kind
  uint32_t size;
  uint32_t disco;
};

Bytes stamped(const Stamp& stamp, bool disco) {
  Bytes packet = disco ? frames::disco(stamp.size) : Bytes(stamp.size, static_cast<uint8_t>(stamp.number));
  std::memcpy(packet.data() + kMagicAt, &stamp, sizeof stamp);
  return packet;
}

class World {
 public:
  World(uint64_t seed, const model::Options& options, uint32_t steps) : random_(seed), relay_(options), steps_(steps) {}

  void run() {
    for (uint32_t step = 0; step < steps_; ++step) {
      act();
      if (random_.oneIn(2)) relay_.turn(random_.below(shards()));
      if (random_.oneIn(50)) relay_.settle();
      if (random_.oneIn(8)) judgeAll();
      if (!relay_.violation().empty()) {
        check::fail(__FILE__, __LINE__, "step " + std::to_string(step) + ": check() says " + relay_.violation());
        return;
      }
      if (check::failures() > 0) return;
    }
    finish();
  }

 private:
  struct Connection {
    Session* session;
    uint32_t key;
    bool mesh;
    std::map<std::pair<uint32_t, uint32_t>, uint32_t> sent;             // destination, kind -> next number
    std::map<std::tuple<uint32_t, uint32_t, uint32_t>, uint32_t> seen;  // sender, source, kind -> last number + 1
  };

  uint32_t shards() const { return shards_; }

  void act() {
    relay_.now_ms += random_.below(30);
    switch (random_.below(20)) {
      case 0:
        if (alive_ < 30) connect();
        break;
      case 1:
        if (Connection* c = any(); c != nullptr && random_.oneIn(4)) relay_.disconnect(*c->session, CloseReason::eof);
        break;
      case 2:
        if (Connection* c = any())
          c->session->kernel_room = random_.oneIn(2) ? UINT64_MAX : random_.below(3) * random_.below(70'000);
        break;
      case 3:
        if (Connection* c = any()) c->session->read_limit = random_.oneIn(2) ? 65'536 : 1 + random_.below(3'000);
        break;
      case 4:
        other();
        break;
      case 5:
        relay_.router(relay_.shardOf(keyOf(kKeys))).setJsForwarder(keyOf(kKeys), random_.oneIn(2));
        break;
      case 6:
        relay_.tick(random_.below(shards()));
        break;
      default:
        packets();
    }
  }

  static Key keyOf(uint32_t n) { return frames::keyOf(1 + n); }

  void connect() {
    const uint32_t key = random_.below(kKeys);
    Session& session = relay_.connect(keyOf(key), random_.oneIn(3), random_.oneIn(5));
    session.kernel_room = random_.oneIn(3) ? random_.below(5'000) : UINT64_MAX;
    connections_.push_back({&session, key, session.client->mesh, {}, {}});
    ++alive_;
  }

  Connection* any() {
    if (connections_.empty()) return nullptr;
    Connection& c = connections_[random_.below(static_cast<uint32_t>(connections_.size()))];
    return c.session->closed() || c.session->client->closing ? nullptr : &c;
  }

  void packets() {
    Connection* c = any();
    if (c == nullptr || c->session->unread.size() > 400'000) return;
    for (uint32_t n = 1 + random_.below(4); n > 0; --n) {
      const uint32_t destination = random_.below(kKeys + 2);
      const bool disco = random_.oneIn(3);
      const bool forward = c->mesh && random_.oneIn(2);
      const uint32_t least = kMagicAt + sizeof(Stamp);
      const uint32_t size =
          random_.oneIn(10) ? least + random_.below(kMaxPacketSize - least + 1) : least + random_.below(1'500);
      const uint32_t source = forward ? 1'000 + random_.below(3) : c->key;
      const Stamp stamp{.sender = static_cast<uint32_t>(c - connections_.data()),
                        .source = source,
                        .destination = destination,
                        .number = c->sent[{destination, disco ? 1 : 0}]++,
                        .size = size,
                        .disco = disco ? 1u : 0u};
      const Bytes packet = stamped(stamp, disco);
      relay_.send(*c->session, forward ? frames::forwardPacket(keyOf(source), keyOf(destination), packet)
                                       : frames::sendPacket(keyOf(destination), packet));
    }
  }

  void other() {
    Connection* c = any();
    if (c == nullptr) return;
    const uint32_t kind = random_.below(c->mesh ? 6 : 5);
    const Bytes frame = kind == 0   ? frames::ping(random_.next(), 8 + random_.below(993))
                        : kind == 1 ? frames::frame(FrameType::kNotePreferred, {static_cast<uint8_t>(random_.below(2))})
                        : kind == 2 ? frames::frame(FrameType{0x40}, Bytes(random_.below(100'000)))
                        : kind == 3 ? frames::frame(FrameType::kPing, Bytes(random_.below(8)))
                        : kind == 4
                            ? frames::frame(FrameType::kHealth, Bytes(3))
                            : frames::frame(FrameType::kClosePeer, frames::bytesOf(keyOf(random_.below(kKeys))));
    if (kind != 3 || random_.oneIn(10)) relay_.send(*c->session, frame);
  }

  void judgeAll() {
    alive_ = 0;
    for (Connection& c : connections_) {
      alive_ += c.session->closed() ? 0 : 1;
      for (const Bytes& frame : c.session->received()) judge(c, frame);
    }
  }

  void judge(Connection& c, const Bytes& frame) {
    switch (frameType(frame.data())) {
      case FrameType::kRecvPacket:
        judgePacket(c, frame);
        break;
      case FrameType::kServerInfo:
        CHECK(frame == Relay::serverInfo());
        break;
      case FrameType::kPong:
        CHECK_EQ(frame.size(), kPongFrameSize);
        break;
      case FrameType::kPeerGone:
        CHECK_EQ(frame.size(), kPeerGoneFrameSize);
        break;
      case FrameType::kKeepAlive:
        CHECK_EQ(frame.size(), kFrameHeaderSize);
        break;
      default:
        check::fail(__FILE__, __LINE__, "a client got a frame of type " + std::to_string(frame[0]));
    }
  }

  void judgePacket(Connection& c, const Bytes& frame) {
    ++delivered_;
    const uint8_t* packet = frame.data() + kPacketFrameFixed;
    Stamp stamp{};
    CHECK(frame.size() >= kPacketFrameFixed + kMagicAt + sizeof stamp);
    std::memcpy(&stamp, packet + kMagicAt, sizeof stamp);
    CHECK_EQ(stamp.destination, c.key);
    CHECK(Key::from(frame.data() + kFrameHeaderSize) == keyOf(stamp.source));
    CHECK(Bytes(frame.begin() + kPacketFrameFixed, frame.end()) == stamped(stamp, stamp.disco != 0));
    uint32_t& next = c.seen[{stamp.sender, 0, stamp.disco}];
    CHECK(stamp.number >= next);
    next = stamp.number + 1;
  }

  // Lets everyone read everything, then counts: what came in was delivered or dropped.
  void finish() {
    for (Connection& c : connections_) c.session->kernel_room = UINT64_MAX;
    relay_.settle();
    judgeAll();
    for (Connection& c : connections_) {
      CHECK(c.session->closed() || c.session->unread.empty());
      CHECK(c.session->closed() || c.session->client->blocked_on == kNotBlocked);
      CHECK(c.session->closed() || c.session->inbox.partial() == 0);
    }
    const int64_t in = relay_.get(Counter::packets_received) + relay_.get(Counter::packets_forwarded_in);
    CHECK_EQ(relay_.get(Counter::packets_sent) + relay_.get(Counter::packets_forwarded_out) + relay_.dropped(), in);
    CHECK_EQ(relay_.get(Counter::packets_forwarded_out), relay_.forwarded.size());
    CHECK_EQ(relay_.get(Counter::ring_packets_in), relay_.get(Counter::ring_packets_out));
    CHECK_EQ(relay_.get(Counter::packets_sent), delivered_);
    CHECK_EQ(relay_.get(Counter::queue_bytes), 0);
    CHECK_EQ(relay_.get(Counter::held_bytes), 0);
    CHECK_EQ(relay_.violation(), "");
    CHECK(delivered_ > steps_ / 20);
  }

  check::Random random_;
  Relay relay_;
  uint32_t steps_;
  uint32_t shards_ = 1;
  uint32_t alive_ = 0;
  std::vector<Connection> connections_;
  int64_t delivered_ = 0;

  friend void runWorld(uint64_t seed, const model::Options& options, uint32_t steps);
};

void runWorld(uint64_t seed, const model::Options& options, uint32_t steps) {
  check::note("seed " + std::to_string(seed) + ", " + std::to_string(options.shards) + " shards");
  World world(seed, options, steps);
  world.shards_ = options.shards;
  world.run();
}

}  // namespace

TEST("whole frames only, to the right client, in each sender's order, and every packet sent or dropped is counted") {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    runWorld(seed, {.shards = 1 + static_cast<uint32_t>(seed % 4), .queue_depth = seed % 3 == 0 ? 2u : 32u}, 10'000);
    if (check::failures() > 0) return;
  }
}

TEST("the same with fighters disabled and with little memory for queues") {
  for (uint64_t seed = 101; seed <= 104; ++seed) {
    runWorld(seed,
             {.shards = 1 + static_cast<uint32_t>(seed % 4),
              .max_queue_bytes = 100'000,
              .keepalive_ms = 500,
              .duplicates = DuplicatePolicy::kDisableFighters},
             5'000);
    if (check::failures() > 0) return;
  }
}
