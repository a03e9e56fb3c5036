#include "handshake_budget.h"

#include <chrono>

#include "connection.h"

namespace derplane {
namespace {

uint64_t nowMs() {
  using std::chrono::steady_clock;
  const auto now = steady_clock::now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

}  // namespace

// The connection may leave its table between the choice and its end: then another one is chosen.
template <typename Choose>
bool HandshakeBudget::evict(Eviction why, Choose choose) {
  while (ending_.load(std::memory_order_relaxed) < kMaxEnding) {
    uint64_t id = 0;
    {
      const std::lock_guard lock(mutex_);
      RosterEntry* const entry = choose(roster_);
      if (entry == nullptr) return false;
      id = entry->id;
    }
    if (!ConnectionTable::instance().evict(id)) continue;
    evicted_[static_cast<uint32_t>(why)].fetch_add(1, std::memory_order_relaxed);
    return true;
  }
  return false;
}

// Where none of its own is silent it may exceed its share as long as no one else needs the room: many clients reach a
// relay through one address, and come back at once after a restart.
bool HandshakeBudget::makeRoomOf(const Address& remote) {
  const uint64_t now = nowMs();
  {
    const std::lock_guard lock(mutex_);
    if (!roster_.atShare(remote)) return false;
  }
  evict(Eviction::kSourceShare, [&](HandshakeRoster& r) { return r.takeSilentOf(remote, now); });
  return true;
}

bool HandshakeBudget::admit(const Address& remote) {
  const uint64_t now = nowMs();
  const bool at_share = makeRoomOf(remote);
  if (hasRoom()) return true;
  if (evict(Eviction::kHandshakes, [&](HandshakeRoster& r) { return r.takeSilent(now); })) return true;
  if (!at_share && evict(Eviction::kSourceShare, [](HandshakeRoster& r) { return r.takeOverShare(); })) return true;
  refused_.fetch_add(1, std::memory_order_relaxed);
  return false;
}

void HandshakeBudget::freeDescriptors(int count) {
  const uint64_t now = nowMs();
  while (count-- > 0 && evict(Eviction::kDescriptors, [&](HandshakeRoster& r) { return r.takeSilent(now); })) continue;
}

bool HandshakeBudget::reserve(size_t more) {
  const size_t held = bytes_.fetch_add(more, std::memory_order_relaxed) + more;
  const auto fits = [&] { return held <= limits_.max_bytes + ending_bytes_.load(std::memory_order_relaxed); };
  const uint64_t now = fits() ? 0 : nowMs();
  for (int ended = 0; !fits(); ++ended) {
    const bool made_room =
        ended < kMaxForBytes && evict(Eviction::kHandshakeBytes, [&](HandshakeRoster& r) { return r.takeStuck(now); });
    if (made_room) continue;
    bytes_.fetch_sub(more, std::memory_order_relaxed);
    refused_bytes_.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  return true;
}

void HandshakeBudget::join(Connection& connection, bool spoke) {
  connection.roster.id = connection.id;
  connection.roster.fd = connection.fd.get();
  const std::lock_guard lock(mutex_);
  // Behind a proxy the client's source counts, which is not known yet.
  roster_.join(connection.roster, connection.may_be_proxied ? Address{} : connection.remote, spoke, nowMs());
}

void HandshakeBudget::move(Connection& connection) {
  const std::lock_guard lock(mutex_);
  if (!connection.roster.listed) return;
  roster_.leave(connection.roster);
  roster_.join(connection.roster, connection.remote, true, nowMs());
}

void HandshakeBudget::leave(Connection& connection) {
  const std::lock_guard lock(mutex_);
  roster_.leave(connection.roster);
}

void HandshakeBudget::step(Connection& connection) {
  const std::lock_guard lock(mutex_);
  roster_.step(connection.roster, nowMs());
}

}  // namespace derplane
