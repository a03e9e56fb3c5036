#include "departures.h"

#include <time.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "../../native/core/router.h"

namespace derplane_load {
namespace {

using namespace derplane;

constexpr uint32_t kPacketBytes = 100;
constexpr uint32_t kFrameBytes = kPacketFrameFixed + kPacketBytes;
// A prime: receivers lie apart from each other, as those of a random client do.
constexpr uint32_t kStride = 7919;

int64_t CpuNanos() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec * 1'000'000'000 + t.tv_nsec;
}

class NoEvents final : public RouterEvents {
  bool forwardToControl(const Key&, const Key&, const uint8_t*, uint32_t) override { return false; }
};

// One shard whose clients read everything at once.
class Bench {
 public:
  explicit Bench(uint32_t clients) : router_(Config(), Counters(values_), events_) {
    for (uint32_t i = 0; i < clients; ++i) {
      clients_.push_back(Enter());
      if (i % kClientsPerTurn == 0) EndTurn();
    }
    EndTurn();
  }

  Client* Enter() {
    static constexpr uint8_t kServerInfo[kFrameHeaderSize] = {static_cast<uint8_t>(FrameType::kServerInfo)};
    Router::Adoption adoption;
    std::memcpy(adoption.key.bytes, &++last_key_, sizeof last_key_);
    return router_.adopt(adoption, kServerInfo, sizeof kServerInfo);
  }

  void Send(Client& sender, uint32_t receivers) {
    std::vector<uint8_t> frames(size_t{receivers} * kFrameBytes);
    for (uint32_t i = 0; i < receivers; ++i) {
      next_ = (next_ + kStride) % clients_.size();
      uint8_t* body =
          putFrameHeader(&frames[size_t{i} * kFrameBytes], FrameType::kSendPacket, kFrameBytes - kFrameHeaderSize);
      std::memcpy(body, clients_[next_]->key.bytes, kKeySize);
    }
    router_.consume(sender, frames.data(), static_cast<uint32_t>(frames.size()));
    EndTurn();
  }

  // Until nobody is left to be told.
  void Leave(Client& sender, DeparturesResult& result) {
    const int64_t start = CpuNanos();
    router_.close(sender, CloseReason::eof);
    EndTurn();
    for (int64_t before = start, now;; before = now) {
      const bool any = router_.background();
      EndTurn();
      now = CpuNanos();
      result.longest = std::max(result.longest, now - before);
      if (any) continue;
      result.cpu += now - start;
      return;
    }
  }

  int64_t Told() const { return Counters(const_cast<int64_t*>(values_)).get(Counter::peer_gone_disconnected_frames); }

 private:
  static constexpr uint32_t kClientsPerTurn = 256;

  static RouterConfig Config() {
    RouterConfig config;
    config.seed = {0x0123456789abcdef, 0xfedcba9876543210};
    return config;
  }

  void EndTurn() {
    while (Client* client = router_.takeTouched()) client->queue.clear(router_.queues(), DropReason::gone_disconnected);
    while (Client* client = router_.takeClosing()) router_.destroy(client);
    router_.publish();
    router_.endTurn();
  }

  int64_t values_[kCounterCount] = {};
  NoEvents events_;
  Router router_;
  std::vector<Client*> clients_;
  uint64_t last_key_ = 0;
  size_t next_ = 0;
};

}  // namespace

std::string RunDepartures(const DeparturesConfig& config, DeparturesResult& result) {
  const auto bench = std::make_unique<Bench>(config.clients);
  for (uint32_t i = 0; i < config.departures; ++i) {
    Client* sender = bench->Enter();
    bench->Send(*sender, config.receivers);
    bench->Leave(*sender, result);
  }
  const auto wanted = int64_t{config.departures} * config.receivers;
  if (bench->Told() == wanted) return {};
  return std::to_string(bench->Told()) + " receivers heard of departures instead of " + std::to_string(wanted);
}

}  // namespace derplane_load
