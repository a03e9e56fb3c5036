// Clients of a shard, filtered and in order, for those who ask who is connected. A shard looks at its slots in bounded
// steps and keeps the best records only, so a question costs the same memory however many clients there are.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "router.h"

namespace derplane {

// A client as the listing shows it. The control plane reads it as it lies here, little-endian
// (src/server/client_records.ts).
struct ClientRecord {
  uint8_t key[kKeySize] = {};
  uint8_t ip[16] = {};         // IPv4 as v4-in-v6
  uint64_t number = 0;         // Client::number
  uint64_t id = 0;             // the connection's number in the control plane
  uint64_t connected_ns = 0;   // Unix time
  uint64_t connected_for = 0;  // milliseconds
  uint64_t rx_packets = 0;     // from the client
  uint64_t rx_bytes = 0;
  uint64_t tx_packets = 0;  // to the client
  uint64_t tx_bytes = 0;
  uint64_t senders = 0;
  int64_t version = 0;
  uint32_t slot = 0;
  uint32_t generation = 0;
  uint16_t port = 0;  // 0: the address is unknown
  uint8_t flags = 0;
  uint8_t app_name_size = 0;
  char app_name[ClientNote::kMaxAppName] = {};
  uint8_t unused[4] = {};
};
static_assert(sizeof(ClientRecord) == 176);

inline constexpr uint8_t kClientActive = 1;  // gets the key's packets
inline constexpr uint8_t kClientDuplicate = 2;
inline constexpr uint8_t kClientDisabled = 4;
inline constexpr uint8_t kClientHome = 8;
inline constexpr uint8_t kClientMesh = 16;
inline constexpr uint8_t kClientNotIdeal = 32;
inline constexpr uint8_t kClientProber = 64;

// The numbers are those of src/server/client_query.ts.
enum class ClientFilter : uint8_t { kAll, kPrefix, kKey };
enum class ClientSort : uint8_t { kKey, kAddress, kNumber, kConnected, kRxBytes, kTxBytes, kRxPackets, kTxPackets };

struct ClientQuery {
  static constexpr uint32_t kMaxLimit = 1000;

  ClientFilter filter = ClientFilter::kAll;
  Key key = {};                        // kKey
  uint8_t prefix[16] = {};             // kPrefix: IPv4 as v4-in-v6
  uint32_t prefix_bits = 0;            // kPrefix: of the 128
  std::vector<std::string> apps = {};  // names of which a client has one; none: any name
  ClientSort sort = ClientSort::kKey;
  bool descending = false;
  uint32_t limit = kMaxLimit;
  // Where the page begins: behind this record's value of the sort column, and of those that have the same value behind
  // its number. Without a number behind all of them, without a port behind all ports.
  bool has_after = false;
  bool after_has_number = false;
  bool after_has_port = false;
  ClientRecord after = {};

  // Below 0: `a` comes first.
  int compare(const ClientRecord& a, const ClientRecord& b) const;
  bool isBehindCursor(const ClientRecord& record) const;
  // Whether the client is one of those asked for. Links, on which we are the client, never are.
  bool matches(const Client& client) const;

 private:
  int compareValues(const ClientRecord& a, const ClientRecord& b, bool with_port) const;
};

class ClientListing {
 public:
  explicit ClientListing(std::shared_ptr<const ClientQuery> query);

  // Looks at up to `slots` slots of the router; false when it has seen all.
  bool step(const Router& router, uint32_t slots);
  // The best records in their order, to be called once.
  std::vector<ClientRecord> finish(const Router& router);

  uint64_t connections() const { return connections_; }  // that match, wherever the cursor is
  uint64_t keys() const { return keys_; }                // of those
  uint64_t behind() const { return behind_; }            // those of them that lie behind the cursor

 private:
  void look(const Router& router, const Client& client);
  void keep(const ClientRecord& record);
  bool comesFirst(uint32_t a, uint32_t b) const { return query_->compare(records_[a], records_[b]) < 0; }

  std::shared_ptr<const ClientQuery> query_;
  uint32_t next_slot_ = 0;
  uint64_t connections_ = 0;
  uint64_t keys_ = 0;
  uint64_t behind_ = 0;
  std::vector<ClientRecord> records_;  // at most query_->limit
  std::vector<uint32_t> heap_;         // of them, the last in order on top
};

}  // namespace derplane
