#include "handshake_roster.h"

#include <sys/ioctl.h>

#include <algorithm>

#include "address.h"

namespace derplane {
namespace {

// False for an address that is not known.
bool prefixOf(const Address& remote, Key& prefix) {
  static constexpr Address kUnknown{};
  static constexpr size_t kNetworkBytes = 8;
  if (std::memcmp(remote.ip, kUnknown.ip, sizeof remote.ip) == 0) return false;
  prefix = {};
  std::memcpy(prefix.bytes, remote.ip, isV4(remote) ? sizeof remote.ip : kNetworkBytes);
  return true;
}

bool hasUnread(int fd) {
  int bytes = 0;
  return ::ioctl(fd, FIONREAD, &bytes) == 0 && bytes > 0;
}

}  // namespace

void HandshakeRoster::join(RosterEntry& entry, const Address& remote, bool spoke, uint64_t now_ms) {
  entry.spoke = spoke;
  entry.since_ms = now_ms;
  if (Key prefix; prefixOf(remote, prefix)) {
    HandshakeSource& source = sources_[prefix];
    source.prefix = prefix;
    if (++source.count == share_ + 1) over_share_.pushBack(source);
    entry.source = &source;
  }
  enlist(entry);
}

void HandshakeRoster::leave(RosterEntry& entry) {
  if (!entry.listed) return;
  delist(entry);
  HandshakeSource* const source = entry.source;
  if (source == nullptr) return;
  entry.source = nullptr;
  if (source->count == share_ + 1) over_share_.remove(*source);
  if (--source->count == 0) sources_.erase(Key{source->prefix});
}

void HandshakeRoster::step(RosterEntry& entry, uint64_t now_ms) {
  if (!entry.listed) return;
  delist(entry);
  entry.spoke = true;
  entry.spared = false;
  entry.since_ms = now_ms;
  enlist(entry);
}

HandshakeSource* HandshakeRoster::find(const Address& remote) {
  Key prefix;
  if (!prefixOf(remote, prefix)) return nullptr;
  const auto it = sources_.find(prefix);
  return it == sources_.end() ? nullptr : &it->second;
}

bool HandshakeRoster::atShare(const Address& remote) {
  const HandshakeSource* const source = find(remote);
  return source != nullptr && source->count >= share_;
}

RosterEntry* HandshakeRoster::takeSilent(uint64_t now_ms) { return takeSilentFrom(all_, now_ms); }

RosterEntry* HandshakeRoster::takeStuck(uint64_t now_ms) { return takeOldest(all_.spoke, kStepGraceMs, now_ms); }

RosterEntry* HandshakeRoster::takeSilentOf(const Address& remote, uint64_t now_ms) {
  HandshakeSource* const source = find(remote);
  return source == nullptr ? nullptr : takeSilentFrom(source->waiting, now_ms);
}

RosterEntry* HandshakeRoster::takeOverShare() {
  HandshakeSource* const source = over_share_.front();
  if (source == nullptr) return nullptr;
  RosterEntry* const mute = source->waiting.mute.front();
  RosterEntry* const entry = mute != nullptr ? mute : source->waiting.spoke.front();
  leave(*entry);
  return entry;
}

void HandshakeRoster::enlist(RosterEntry& entry) {
  all_.listOf(entry).pushBack(entry);
  if (entry.source != nullptr) entry.source->waiting.listOf(entry).pushBack(entry);
  entry.listed = true;
}

void HandshakeRoster::delist(RosterEntry& entry) {
  all_.listOf(entry).remove(entry);
  if (entry.source != nullptr) entry.source->waiting.listOf(entry).remove(entry);
  entry.listed = false;
}

// What the connection sent may still wait for us: then we are late, not the connection. Once a step: bytes that
// remain unread must not protect it forever.
bool HandshakeRoster::spare(RosterEntry& entry, uint64_t now_ms) {
  if (entry.spared || !hasUnread(entry.fd)) return false;
  step(entry, now_ms);
  entry.spared = true;
  return true;
}

template <typename List>
RosterEntry* HandshakeRoster::takeOldest(List& list, uint64_t grace_ms, uint64_t now_ms) {
  for (int looks = 0; looks < kMaxLooks; ++looks) {
    RosterEntry* const entry = list.front();
    if (entry == nullptr || now_ms < entry->since_ms + grace_ms) break;
    if (spare(*entry, now_ms)) continue;
    leave(*entry);
    return entry;
  }
  return nullptr;
}

template <Links<RosterEntry> RosterEntry::* kLinks>
RosterEntry* HandshakeRoster::takeSilentFrom(WaitingEntries<kLinks>& waiting, uint64_t now_ms) {
  RosterEntry* const mute = takeOldest(waiting.mute, kMuteGraceMs, now_ms);
  return mute != nullptr ? mute : takeOldest(waiting.spoke, kStepGraceMs, now_ms);
}

}  // namespace derplane
