// What a shard measures about its clients beside their packets: round-trip times, and traffic as the kernel counts it.
#include <cstring>

#include "shard.h"
#include "tcp_info.h"

namespace derplane {
namespace {

// What /debug/traffic gets of a client: whole records stand one behind the other in an event, in this machine's byte
// order.
struct TrafficRecord {
  uint64_t id;  // the connection's number
  uint64_t sent;
  uint64_t received;
  uint64_t senders;
  uint8_t key[kKeySize];
};
static_assert(sizeof(TrafficRecord) == 64);

}  // namespace

void Shard::startMeasuring(Client& client) {
  router_.counters().add(Counter::adopted);
  if (core_->config.rtt_interval_ms == 0) return;
  TcpInfo info;
  switch (tcpInfo(client.fd, info)) {
    case TcpInfoResult::kOk:
      queueRtt(client);
      break;
    case TcpInfoResult::kNoTcp:
      router_.counters().rtt(RttBucket::non_tcp);
      break;
    case TcpInfoResult::kError:
      router_.counters().rtt(RttBucket::error);
      break;
  }
}

// All intervals are equal, so that the list is in the order of due times.
void Shard::queueRtt(Client& client) {
  client.rtt_due_ms = router_.now() + core_->config.rtt_interval_ms;
  client.rtt_next = nullptr;
  client.rtt_prev = rtt_last_;
  (rtt_last_ == nullptr ? rtt_first_ : rtt_last_->rtt_next) = &client;
  rtt_last_ = &client;
}

void Shard::stopMeasuring(Client& client) {
  if (client.rtt_due_ms == 0) return;
  client.rtt_due_ms = 0;
  (client.rtt_prev == nullptr ? rtt_first_ : client.rtt_prev->rtt_next) = client.rtt_next;
  (client.rtt_next == nullptr ? rtt_last_ : client.rtt_next->rtt_prev) = client.rtt_prev;
}

// Returns whether any was due: there may be more then, and the next turn comes at once.
bool Shard::measureRtts() {
  uint32_t measured = 0;
  for (; measured < kRttsPerTurn && rtt_first_ != nullptr && rtt_first_->rtt_due_ms <= router_.now(); ++measured) {
    Client& client = *rtt_first_;
    stopMeasuring(client);
    TcpInfo info;
    if (tcpInfo(client.fd, info) != TcpInfoResult::kOk) continue;  // a socket that fails is about to be closed
    router_.counters().rtt(rttBucketOf(info.rtt_us));
    queueRtt(client);
  }
  return measured > 0;
}

// A bounded part of the answer to the oldest ticket. Returns whether there was anything to do.
bool Shard::reportTraffic() {
  if (traffic_.empty()) return false;
  const uint32_t slots = router_.slotCount();
  Event event{.kind = Event::Kind::kTraffic, .ticket = traffic_.front(), .shard = index_};
  event.packet.reserve(kTrafficSlotsPerTurn * sizeof(TrafficRecord));
  for (uint32_t seen = 0; seen < kTrafficSlotsPerTurn && traffic_slot_ < slots; ++seen) {
    const Client* client = router_.clientInSlot(traffic_slot_++);
    TcpInfo info;
    if (client == nullptr || client->closing || tcpInfo(client->fd, info) != TcpInfoResult::kOk) continue;
    TrafficRecord record{
        .id = client->id,
        .sent = info.sent,
        .received = info.received,
        .senders = client->senders.size(),
        .key = {},
    };
    std::memcpy(record.key, client->key.bytes, kKeySize);
    const auto* bytes = reinterpret_cast<const uint8_t*>(&record);
    event.packet.insert(event.packet.end(), bytes, bytes + sizeof record);
  }
  event.last = traffic_slot_ >= slots;
  if (event.last) {
    traffic_.erase(traffic_.begin());
    traffic_slot_ = 0;
  }
  core_->emit(std::move(event));
  return true;
}

// A bounded part of the oldest listing. Returns whether there was anything to do.
bool Shard::listClients() {
  if (listings_.empty()) return false;
  auto& [ticket, clients] = listings_.front();
  if (clients.step(router_, kListedSlotsPerTurn)) return true;
  const std::vector<ClientRecord> records = clients.finish(router_);
  const auto* bytes = reinterpret_cast<const uint8_t*>(records.data());
  core_->emit({.kind = Event::Kind::kClients,
               .packet = std::vector<uint8_t>(bytes, bytes + records.size() * sizeof(ClientRecord)),
               .ticket = ticket,
               .shard = index_,
               .connections = clients.connections(),
               .keys = clients.keys(),
               .behind = clients.behind()});
  listings_.pop_front();
  return true;
}

void Shard::publishAverages() {
  const double average = router_.queues().durations.average();
  if (average == shown_average_) return;
  shown_average_ = average;
  router_.counters().set(Counter::average_queue_duration_ns, static_cast<int64_t>(average * 1e6));
}

}  // namespace derplane
