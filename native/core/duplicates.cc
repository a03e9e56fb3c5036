#include "duplicates.h"

namespace derplane {

void Duplicates::elect(Peer& peer) {
  peer.active = peer.primary != nullptr && !peer.primary->disabled ? peer.primary : nullptr;
}

void Duplicates::join(Peer& peer, Client& client) {
  client.next_of_key = peer.connections;
  peer.connections = &client;
  ++peer.connection_count;
  if (peer.connection_count == 2) {
    // The older one counts as having spoken.
    Client* older = client.next_of_key;
    older->spoke = ++speech_;
    peer.last_speaker = older;
    counters_.add(Counter::current_dup_client_keys);
    counters_.add(Counter::current_dup_client_conns, 2);
    counters_.add(Counter::total_dup_client_conns);
  } else if (peer.connection_count > 2) {
    client.spoke = ++speech_;
    peer.last_speaker = &client;
    counters_.add(Counter::current_dup_client_conns);
    counters_.add(Counter::total_dup_client_conns);
  }
  peer.primary = &client;
  elect(peer);
}

void Duplicates::leave(Peer& peer, Client& client) {
  Client** link = &peer.connections;
  while (*link != &client) link = &(*link)->next_of_key;
  *link = client.next_of_key;
  client.next_of_key = nullptr;
  --peer.connection_count;
  if (peer.connection_count == 0) {
    peer.primary = peer.active = peer.last_speaker = nullptr;
    return;
  }
  if (peer.connection_count == 1) {
    Client* last = peer.connections;
    last->disabled = false;
    last->spoke = 0;
    peer.primary = last;
    peer.last_speaker = nullptr;
    counters_.add(Counter::current_dup_client_keys, -1);
    counters_.add(Counter::current_dup_client_conns, -2);
  } else {
    counters_.add(Counter::current_dup_client_conns, -1);
    if (peer.last_speaker == &client) {
      peer.last_speaker = nullptr;
      for (Client* c = peer.connections; c != nullptr; c = c->next_of_key) {
        if (c->spoke != 0 && (peer.last_speaker == nullptr || c->spoke > peer.last_speaker->spoke)) {
          peer.last_speaker = c;
        }
      }
    }
    if (peer.primary == &client) peer.primary = peer.last_speaker;
  }
  elect(peer);
}

void Duplicates::spoke(Peer& peer, Client& client) {
  if (policy_ == DuplicatePolicy::kLastWriterActive || peer.primary == nullptr) peer.primary = &client;
  if (peer.last_speaker != &client) {
    if (policy_ == DuplicatePolicy::kDisableFighters && client.spoke != 0) {
      for (Client* c = peer.connections; c != nullptr; c = c->next_of_key) c->disabled = true;
    }
    client.spoke = ++speech_;
    peer.last_speaker = &client;
  }
  elect(peer);
}

}  // namespace derplane
