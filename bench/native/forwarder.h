// The least that a relay can do: one epoll thread that moves packets between keys, without queues, limits, duplicates
// or checks beyond memory safety. It shows what the machine allows, and how much of a figure is the load's own.
#pragma once

#include <sys/epoll.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "load.h"
#include "tls.h"

namespace derplane_load {

class Forwarder {
 public:
  // Speaks TLS when it gets a context for it.
  Forwarder(const Key& public_key, std::optional<TlsContext> tls);
  ~Forwarder();
  Forwarder(const Forwarder&) = delete;
  Forwarder& operator=(const Forwarder&) = delete;

  // Listens on a free port of 127.0.0.1. Returns an error text, empty on success.
  std::string Listen();
  uint16_t port() const { return port_; }

  // Relays until epoll fails; returns why. Ends with the process.
  std::string Run();

 private:
  enum class State : uint8_t { kAwaitingHead, kAwaitingClientInfo, kReady };

  // A part of the arena that goes to one destination.
  struct Piece {
    uint8_t* start;
    size_t length;
  };

  struct Peer {
    int fd = -1;
    State state = State::kAwaitingHead;
    bool touched = false;
    bool watching_output = false;
    Key key{};
    std::vector<Piece> pieces;     // to send at the end of this turn
    std::vector<uint8_t> carry;    // beginning of a frame
    std::vector<uint8_t> pending;  // output that the kernel did not take; with TLS it is sealed
    std::unique_ptr<TlsSession> tls;
  };

  struct KeyHash {
    // Keys come from our own load, so their bytes are random enough.
    size_t operator()(const Key& key) const {
      size_t value;
      memcpy(&value, key.data(), sizeof value);
      return value;
    }
  };

  void Accept();
  void OnEvent(int fd, uint32_t events);
  bool Read(Peer& peer);
  ptrdiff_t Receive(Peer& peer, uint8_t* out);
  size_t OnHead(Peer& peer, const uint8_t* bytes, size_t count);
  bool OnFrame(Peer& peer, uint8_t* frame, size_t length);
  void Queue(Peer& peer, uint8_t* bytes, size_t count);
  void FlushTouched();
  bool Flush(Peer& peer);
  bool SealPieces(Peer& peer);
  bool Send(Peer& peer, std::vector<uint8_t> bytes);
  bool WatchOutput(Peer& peer, bool on);
  void Close(Peer& peer);

  const Key public_key_;
  int listener_ = -1;
  int epoll_ = -1;
  uint16_t port_ = 0;
  std::vector<Peer> peers_;  // by descriptor
  std::unordered_map<Key, int, KeyHash> by_key_;
  std::vector<int> touched_;
  std::vector<uint8_t> arena_;  // what was received in this turn; pieces point into it
  size_t arena_used_ = 0;
  const std::optional<TlsContext> tls_;
  TlsWire wire_;
  std::vector<uint8_t> sealed_;  // a read of a TLS peer
  std::vector<uint8_t> plain_;   // pieces that become records together
};

}  // namespace derplane_load
