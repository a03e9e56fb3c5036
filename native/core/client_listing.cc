#include "client_listing.h"

#include <algorithm>
#include <cstring>

#include "ip.h"

namespace derplane {
namespace {

template <typename T>
int order(T a, T b) {
  return a < b ? -1 : a > b ? 1 : 0;
}

// IPv4 comes before IPv6.
int orderAddresses(const uint8_t* a, const uint8_t* b) {
  const int family = order(isV4(a) ? 0 : 1, isV4(b) ? 0 : 1);
  return family != 0 ? family : std::memcmp(a, b, 16);
}

bool startsWith(const uint8_t* ip, const uint8_t* prefix, uint32_t bits) {
  if (std::memcmp(ip, prefix, bits / 8) != 0) return false;
  const uint32_t rest = bits % 8;
  return rest == 0 || (ip[bits / 8] ^ prefix[bits / 8]) >> (8 - rest) == 0;
}

ClientRecord recordOf(const Router& router, const Client& client) {
  const Peer& peer = *client.peer;
  ClientRecord record;
  std::memcpy(record.key, client.key.bytes, kKeySize);
  std::memcpy(record.ip, client.address.ip, sizeof record.ip);
  record.port = client.address.port;
  record.number = client.number;
  record.id = client.id;
  record.connected_ns = client.connected_ns;
  record.connected_for = router.now() - client.connected_ms;
  record.rx_packets = client.received_packets;
  record.rx_bytes = client.received_bytes;
  record.tx_packets = client.queue.sentPackets();
  record.tx_bytes = client.queue.sentBytes();
  record.slot = client.slot;
  record.generation = client.generation;
  record.version = ClientNote::kUsualVersion;
  if (client.note != nullptr) {
    record.version = client.note->version;
    record.app_name_size = static_cast<uint8_t>(client.note->app_name.size());
    std::memcpy(record.app_name, client.note->app_name.data(), record.app_name_size);
  }
  const auto set = [&record](bool on, uint8_t flag) { record.flags |= on ? flag : 0; };
  set(peer.active == &client, kClientActive);
  set(peer.connection_count > 1, kClientDuplicate);
  set(client.disabled, kClientDisabled);
  set(client.preferred, kClientHome);
  set(client.mesh, kClientMesh);
  set(client.not_ideal, kClientNotIdeal);
  set(client.prober, kClientProber);
  return record;
}

}  // namespace

int ClientQuery::compareValues(const ClientRecord& a, const ClientRecord& b, bool with_port) const {
  switch (sort) {
    case ClientSort::kKey:
      return std::memcmp(a.key, b.key, kKeySize);
    case ClientSort::kAddress: {
      const int ips = orderAddresses(a.ip, b.ip);
      return ips != 0 || !with_port ? ips : order(a.port, b.port);
    }
    case ClientSort::kNumber:
      return order(a.number, b.number);
    case ClientSort::kConnected:
      return order(a.connected_ns, b.connected_ns);
    case ClientSort::kRxBytes:
      return order(a.rx_bytes, b.rx_bytes);
    case ClientSort::kTxBytes:
      return order(a.tx_bytes, b.tx_bytes);
    case ClientSort::kRxPackets:
      return order(a.rx_packets, b.rx_packets);
    case ClientSort::kTxPackets:
      return order(a.tx_packets, b.tx_packets);
  }
  return 0;
}

int ClientQuery::compare(const ClientRecord& a, const ClientRecord& b) const {
  const int values = compareValues(a, b, true);
  const int result = values != 0 ? values : order(a.number, b.number);
  return descending ? -result : result;
}

bool ClientQuery::isBehindCursor(const ClientRecord& record) const {
  if (!has_after) return true;
  const int values = compareValues(record, after, after_has_port);
  if (values == 0 && !after_has_number) return false;
  const int result = values != 0 ? values : order(record.number, after.number);
  return descending ? result < 0 : result > 0;
}

bool ClientQuery::matches(const Client& client) const {
  if (client.link != nullptr || client.closing) return false;
  if (filter == ClientFilter::kKey && client.key != key) return false;
  // A prefix of IPv6 may be shorter than what IPv4 addresses begin with.
  if (filter == ClientFilter::kPrefix &&
      (isV4(client.address.ip) != isV4(prefix) || !startsWith(client.address.ip, prefix, prefix_bits))) {
    return false;
  }
  if (apps.empty()) return true;
  static const std::string kNone;
  const std::string& app = client.note == nullptr ? kNone : client.note->app_name;
  return std::find(apps.begin(), apps.end(), app) != apps.end();
}

ClientListing::ClientListing(std::shared_ptr<const ClientQuery> query) : query_(std::move(query)) {}

bool ClientListing::step(const Router& router, uint32_t slots) {
  if (query_->filter == ClientFilter::kKey) {  // its connections are known, and have a bound
    const Peer* peer = router.peerOf(query_->key);
    for (const Client* c = peer == nullptr ? nullptr : peer->connections; c != nullptr; c = c->next_of_key) {
      look(router, *c);
    }
    return false;
  }
  for (uint32_t seen = 0; seen < slots && next_slot_ < router.slotCount(); ++seen) {
    const Client* client = router.clientInSlot(next_slot_++);
    if (client != nullptr) look(router, *client);
  }
  return next_slot_ < router.slotCount();
}

void ClientListing::look(const Router& router, const Client& client) {
  if (!query_->matches(client)) return;
  ++connections_;
  // A key counts with the first of its connections that matches.
  const Client* first = client.peer->connections;
  while (first != &client && !query_->matches(*first)) first = first->next_of_key;
  if (first == &client) ++keys_;
  const ClientRecord record = recordOf(router, client);
  if (!query_->isBehindCursor(record)) return;
  ++behind_;
  keep(record);
}

void ClientListing::keep(const ClientRecord& record) {
  const auto later = [this](uint32_t a, uint32_t b) { return comesFirst(a, b); };
  if (records_.size() < query_->limit) {
    heap_.push_back(static_cast<uint32_t>(records_.size()));
    records_.push_back(record);
  } else {
    if (query_->compare(record, records_[heap_.front()]) >= 0) return;
    std::pop_heap(heap_.begin(), heap_.end(), later);
    records_[heap_.back()] = record;
  }
  std::push_heap(heap_.begin(), heap_.end(), later);
}

std::vector<ClientRecord> ClientListing::finish(const Router& router) {
  std::sort_heap(heap_.begin(), heap_.end(), [this](uint32_t a, uint32_t b) { return comesFirst(a, b); });
  std::vector<ClientRecord> sorted;
  sorted.reserve(heap_.size());
  for (const uint32_t i : heap_) {
    ClientRecord& record = sorted.emplace_back(records_[i]);
    // Not earlier: of a client with very many senders the number is an estimate that takes some time.
    const Client* client = router.clientAt(record.slot, record.generation);
    if (client != nullptr) record.senders = client->senders.size();
  }
  return sorted;
}

}  // namespace derplane
