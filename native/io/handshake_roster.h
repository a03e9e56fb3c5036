// Connections in their handshake, in the order in which each last made progress. Finds the connection to end when
// another one needs room, in constant time: overall, and of one source address.
//
// Progress is a step of the handshake, not a byte: the first bytes, TLS established, the request, what follows it. So a
// connection that sends a byte now and then is as easy to end as one that sends nothing.
//
// Not thread-safe: HandshakeBudget holds the lock.
#pragma once

#include <cstdint>
#include <unordered_map>

#include "../core/client.h"
#include "../core/key.h"
#include "../core/linked_list.h"

namespace derplane {

struct HandshakeSource;

// A connection's place in the roster.
struct RosterEntry {
  uint64_t id = 0;
  int fd = -1;
  uint64_t since_ms = 0;              // when it joined or last made progress
  HandshakeSource* source = nullptr;  // null: the address is unknown
  Links<RosterEntry> in_all;
  Links<RosterEntry> in_source;
  bool listed = false;
  bool spoke = false;   // it sent something
  bool spared = false;  // bytes that we had not read yet saved it once since its last step
};

// Those who sent nothing, and those who did, each with the longest without progress in front.
template <Links<RosterEntry> RosterEntry::* kLinks>
struct WaitingEntries {
  LinkedList<RosterEntry, kLinks> mute;
  LinkedList<RosterEntry, kLinks> spoke;

  LinkedList<RosterEntry, kLinks>& listOf(const RosterEntry& entry) { return entry.spoke ? spoke : mute; }
};

// The handshakes of one IPv4 address, or of one IPv6 /64: what one stranger usually has.
struct HandshakeSource {
  Key prefix;
  uint32_t count = 0;
  WaitingEntries<&RosterEntry::in_source> waiting;
  Links<HandshakeSource> in_over_share;
};

class HandshakeRoster {
 public:
  // A connection that sent nothing yet is left alone for this long: a client's first bytes come right behind its
  // connection, so only loss makes a real one slower.
  static constexpr uint64_t kMuteGraceMs = 100;
  // A step takes real clients one round trip.
  static constexpr uint64_t kStepGraceMs = 1000;

  // `share`: handshakes that one source may have before it makes room for its own.
  HandshakeRoster(const HashSeed& seed, uint32_t share) : sources_(0, Hash{seed}), share_(share) {}

  // `spoke`: it sent something already.
  void join(RosterEntry& entry, const Address& remote, bool spoke, uint64_t now_ms);
  // Idempotent.
  void leave(RosterEntry& entry);
  // Nothing for an entry that left.
  void step(RosterEntry& entry, uint64_t now_ms);

  // Whether one more from there exceeds its share.
  bool atShare(const Address& remote);

  // Each takes an entry out of the roster and returns it; null: there is none to end.
  // The oldest that sent nothing, else the one that has made no progress for longest.
  RosterEntry* takeSilent(uint64_t now_ms);
  // The same among those from one address.
  RosterEntry* takeSilentOf(const Address& remote, uint64_t now_ms);
  // The one that has made no progress for longest, of those who sent something.
  RosterEntry* takeStuck(uint64_t now_ms);
  // The oldest of a source over its share, even if it makes progress.
  RosterEntry* takeOverShare();

  // Figures, for tests.
  size_t sources() const { return sources_.size(); }

 private:
  // Entries looked at before giving up: those with bytes that we have not read yet are not to blame.
  static constexpr int kMaxLooks = 32;

  struct Hash {
    HashSeed seed;
    size_t operator()(const Key& prefix) const { return static_cast<size_t>(hashKey(seed, prefix.bytes)); }
  };

  // Null when none of its handshakes is in progress.
  HandshakeSource* find(const Address& remote);
  void enlist(RosterEntry& entry);
  void delist(RosterEntry& entry);
  bool spare(RosterEntry& entry, uint64_t now_ms);
  // The oldest of a list, once it has made no progress for `grace_ms`.
  template <typename List>
  RosterEntry* takeOldest(List& list, uint64_t grace_ms, uint64_t now_ms);
  template <Links<RosterEntry> RosterEntry::* kLinks>
  RosterEntry* takeSilentFrom(WaitingEntries<kLinks>& waiting, uint64_t now_ms);

  WaitingEntries<&RosterEntry::in_all> all_;
  // At most as many as there are entries. Strangers choose addresses, so the hash has a secret.
  std::unordered_map<Key, HandshakeSource, Hash> sources_;
  LinkedList<HandshakeSource, &HandshakeSource::in_over_share> over_share_;
  uint32_t share_;
};

}  // namespace derplane
