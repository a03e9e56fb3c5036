// A shard's counters: 64-bit integers in memory shared with the control plane. The shard is the only writer, anybody
// reads; relaxed stores suffice because every value stands alone.
#pragma once

#include <cstdint>

#include "close_reason.h"
#include "drop_reason.h"
#include "histogram.h"
#include "rtt_bucket.h"

namespace derplane {

// name, meaning. Gauges go up and down; the rest only rises.
#define DERPLANE_COUNTERS(X)                                                                        \
  X(packets_received, "SendPacket frames taken from clients")                                       \
  X(bytes_received, "payload bytes of those")                                                       \
  X(packets_received_disco, "SendPacket frames whose packet looks like disco")                      \
  X(packets_received_other, "SendPacket frames with any other packet")                              \
  X(packets_sent, "RecvPacket frames that the kernel took")                                         \
  X(bytes_sent, "payload bytes of those")                                                           \
  X(packets_forwarded_in, "ForwardPacket frames taken from mesh peers")                             \
  X(packets_forwarded_out, "packets given to a forwarder")                                          \
  X(got_ping, "Ping frames")                                                                        \
  X(sent_pong, "Pong frames that the kernel took")                                                  \
  X(unknown_frames, "frames of unknown type, skipped")                                              \
  X(peer_gone_disconnected_frames, "PeerGone(disconnected) frames queued")                          \
  X(peer_gone_not_here_frames, "PeerGone(not here) frames queued")                                  \
  X(sclient_write_timeouts, "clients closed because their socket refused output too long")          \
  X(home_moves_in, "NotePreferred turned on more than 5 s after connecting")                        \
  X(home_moves_out, "NotePreferred turned off more than 5 s after connecting")                      \
  X(total_dup_client_conns, "connections that joined a key already connected")                      \
  X(current_connections, "gauge: clients, duplicates and mesh peers included")                      \
  X(clients_local, "gauge: keys with at least one connection")                                      \
  X(clients_total, "gauge: keys with a connection or a forwarder")                                  \
  X(current_home_connections, "gauge: clients that call this relay their home")                     \
  X(current_notideal_connections, "gauge: clients that said this is not their ideal node")          \
  X(current_dup_client_conns, "gauge: connections of keys that have several")                       \
  X(current_dup_client_keys, "gauge: keys that have several connections")                           \
  X(queue_bytes, "gauge: bytes of memory that send queues hold")                                    \
  X(held_bytes, "gauge: bytes read and kept until a ring has room")                                 \
  X(turns, "turns of the event loop")                                                               \
  X(reads, "recv calls")                                                                            \
  X(writes, "send calls")                                                                           \
  X(ring_packets_in, "packets taken from rings")                                                    \
  X(ring_packets_out, "packets put into rings")                                                     \
  X(ring_full, "times that a connection had to wait for room in a ring")                            \
  X(ring_wakes, "wake-ups sent to sleeping shards")                                                 \
  X(lost_wakes, "rings with room that only the timer found, without a wake-up: must stay 0")        \
  X(watchers, "gauge: mesh peers that watch presence")                                              \
  X(multiforwarder_created, "keys that got a second forwarder")                                     \
  X(multiforwarder_deleted, "keys that went back to one forwarder")                                 \
  X(packet_forwarder_delete_other_value, "removals of a forwarder that a known key did not have")   \
  X(rate_limit_per_client_waited, "frames that had to wait for their client's receive limit")       \
  X(crowd_pauses, "times that a mesh link or a mesh peer's frame waited for long lists of notices") \
  X(senders_forgotten, "packets whose sender was not remembered, as too many senders are")          \
  X(adopted, "connections that became clients")                                                     \
  X(tls12_connections, "gauge: clients over TLS 1.2")                                               \
  X(tls13_connections, "gauge: clients over TLS 1.3")                                               \
  X(average_queue_duration_ns, "gauge: moving average of the time in queues")

enum class Counter : uint32_t {
#define DERPLANE_X(name, help) name,
  DERPLANE_COUNTERS(DERPLANE_X)
#undef DERPLANE_X
      count
};

// After the named counters: packets_dropped and bytes_dropped by reason and kind, clients closed by reason, round-trip
// times, histograms, figures of labels.
inline constexpr uint32_t kDropKinds = 2;  // other, disco
inline constexpr uint32_t kDropPacketsBase = static_cast<uint32_t>(Counter::count);
inline constexpr uint32_t kDropBytesBase = kDropPacketsBase + kDropReasons * kDropKinds;
inline constexpr uint32_t kCloseBase = kDropBytesBase + kDropReasons * kDropKinds;
inline constexpr uint32_t kRttBase = kCloseBase + kCloseReasons;
inline constexpr uint32_t kHistogramBase = kRttBase + kRttBuckets;
inline constexpr uint32_t kLabelBase = kHistogramBase + histogramOffset(kHistograms);

// What is counted of the clients that admission gave a label. Names are metrics.
#define DERPLANE_LABEL_COUNTERS(X)                                                                       \
  X(clients, "gauge: clients")                                                                           \
  X(packets_received, "packets that they sent")                                                          \
  X(bytes_received, "payload bytes of those")                                                            \
  X(packets_sent, "packets sent to them")                                                                \
  X(bytes_sent, "payload bytes of those")                                                                \
  X(packets_dropped, "packets from them without a destination, and to them that they were too slow for") \
  X(bytes_dropped, "payload bytes of those")                                                             \
  X(limit_waited, "frames of theirs that had to wait for the receive limit")

enum class LabelCounter : uint32_t {
#define DERPLANE_X(name, help) name,
  DERPLANE_LABEL_COUNTERS(DERPLANE_X)
#undef DERPLANE_X
      count
};

// Labels are numbers from 1 on; 0 is a client without one. The last stands for all that found no number.
inline constexpr uint8_t kMaxLabels = 64;
inline constexpr uint8_t kNoLabel = 0;
inline constexpr uint8_t kOtherLabel = kMaxLabels;
inline constexpr uint32_t kLabelCounters = static_cast<uint32_t>(LabelCounter::count);
inline constexpr uint32_t kCounterCount = kLabelBase + kMaxLabels * kLabelCounters;

class Counters {
 public:
  explicit Counters(int64_t* values) : values_(values) {}

  void add(Counter c, int64_t n = 1) { bump(static_cast<uint32_t>(c), n); }

  // Of a client's label, if it has one.
  void label(uint8_t label, LabelCounter c, int64_t n = 1) {
    if (label != kNoLabel) bump(kLabelBase + (label - 1u) * kLabelCounters + static_cast<uint32_t>(c), n);
  }

  // `label`: of the client whose packet it is, or which was too slow for it.
  void drop(DropReason reason, bool disco, uint32_t payload_bytes, uint8_t label_of = kNoLabel) {
    label(label_of, LabelCounter::packets_dropped);
    label(label_of, LabelCounter::bytes_dropped, payload_bytes);
    const uint32_t i = static_cast<uint32_t>(reason) * kDropKinds + (disco ? 1 : 0);
    bump(kDropPacketsBase + i, 1);
    bump(kDropBytesBase + i, payload_bytes);
  }

  void closed(CloseReason reason) { bump(kCloseBase + static_cast<uint32_t>(reason), 1); }

  void rtt(RttBucket bucket) { bump(kRttBase + static_cast<uint32_t>(bucket), 1); }

  // A watcher took `changes` presence changes at once, which needed `batches` rounds.
  void observeMeshBatch(uint32_t changes, uint32_t batches = 1) {
    observe<Histogram::mesh_update_batch_size>(changes);
    observe<Histogram::mesh_update_loop_count>(batches);
  }
  // A flush that completed `frames` frames.
  void observeWrite(uint32_t frames) { observe<Histogram::buffered_write_frames>(frames); }

  // For gauges that are computed elsewhere.
  void set(Counter c, int64_t value) { __atomic_store_n(values_ + static_cast<uint32_t>(c), value, __ATOMIC_RELAXED); }

  int64_t get(Counter c) const { return values_[static_cast<uint32_t>(c)]; }
  int64_t get(uint8_t label, LabelCounter c) const {
    return values_[kLabelBase + (label - 1u) * kLabelCounters + static_cast<uint32_t>(c)];
  }
  int64_t dropped(DropReason reason, bool disco) const {
    return values_[kDropPacketsBase + static_cast<uint32_t>(reason) * kDropKinds + (disco ? 1 : 0)];
  }

 private:
  template <Histogram kHistogram>
  void observe(uint32_t value) {
    constexpr auto kIndex = static_cast<uint32_t>(kHistogram);
    constexpr HistogramShape kShape = kHistogramShapes[kIndex];
    constexpr uint32_t kBase = kHistogramBase + histogramOffset(kIndex);
    bump(kBase + kShape.bucketOf(value), 1);
    bump(kBase + kShape.size + 1, value);
  }

  void bump(uint32_t i, int64_t n) { __atomic_store_n(values_ + i, values_[i] + n, __ATOMIC_RELAXED); }

  int64_t* values_;
};

// Name of counter i, as the control plane and the metrics know it: `packets_dropped.queue_head.disco`,
// `closed.bad_ping`, `tcp_rtt.10ms`; of histograms `buffered_write_frames.le.25`, `.le.+Inf` and `.sum`; of labels
// `label.1.packets_sent`. Writes at most `size` bytes, terminated.
void counterName(uint32_t i, char* out, uint32_t size);

}  // namespace derplane
