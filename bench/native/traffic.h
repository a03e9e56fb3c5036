// Packets among a connected fleet: sends, receives, checks and counts them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "fleet.h"
#include "load.h"

namespace derplane_load {

class Traffic {
 public:
  // Every client of the fleet is connected.
  Traffic(Fleet& fleet, const TrafficConfig& config);

  // Warm-up, then the measured window. An error when the relay or the epoll fails; lost clients are counted instead.
  Error Run(TrafficResult& result);

 private:
  // One direction between two clients. Sequences start at 0 and are in order, so `expected` says what arrived.
  struct Slot {
    uint32_t destination;
    uint32_t sent;         // next sequence to send
    uint32_t expected;     // next sequence to arrive
    uint32_t written_off;  // sequences below were counted as lost by the stall timer
    uint32_t sent_at;      // last send, in milliseconds of NowNanos
  };

  struct Sender {
    uint32_t first_slot;
    uint32_t slots;
    uint32_t outstanding;  // closed loop
    uint32_t due;          // open loop: packets to send now
    uint64_t turn;         // open loop: packets that were due so far
    bool touched;
  };

  Error Step(int64_t timeout);
  Error RunFor(int64_t duration);
  void OnEvent(uint32_t index, uint32_t events);
  void OnPacket(uint32_t receiver, const uint8_t* body, uint32_t length);
  void Touch(uint32_t index);
  void FlushTouched();
  void Flush(uint32_t index);
  uint32_t FramesWanted(const Sender& sender) const;
  void Compose(uint32_t index, Sender& sender, uint8_t* frame, int64_t now);
  void MarkDue(int64_t now);
  int64_t UntilNextDue(int64_t now) const;
  void WriteOffStalled();
  void Disconnect(uint32_t index);
  uint32_t Random(uint32_t below);

  // Frames of one send: the filler is written once, each packet overwrites its head and check only.
  static constexpr uint32_t kFramesPerSend = 64;

  Fleet& fleet_;
  const TrafficConfig config_;
  const size_t stride_;
  std::vector<Sender> senders_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> touched_;
  std::vector<uint8_t> output_;
  TrafficResult* result_ = nullptr;
  int64_t received_at_ = 0;
  int64_t next_sweep_ = 0;
  int64_t open_since_ = 0;
  uint64_t issued_ = 0;
  uint64_t random_ = 0x9e3779b97f4a7c15;
};

}  // namespace derplane_load
