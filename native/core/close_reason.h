// Why a client's connection ended. One list feeds the code, the counters and the log.
#pragma once

#include <cstdint>

namespace derplane {

#define DERPLANE_CLOSE_REASONS(X)                                                                        \
  X(eof, "the other side closed its connection")                                                         \
  X(reset, "the connection failed")                                                                      \
  X(bad_packet_frame, "packet frame shorter than its keys")                                              \
  X(packet_too_big, "packet over 65,536 bytes")                                                          \
  X(bad_ping, "Ping of fewer than 8 or more than 1,000 bytes")                                           \
  X(bad_note_preferred, "NotePreferred of another length than 1 byte")                                   \
  X(bad_watch_conns, "WatchConns with a body")                                                           \
  X(bad_close_peer, "ClosePeer of another length than 32 bytes")                                         \
  X(insufficient_permissions, "mesh frame from a client that is not a mesh peer")                        \
  X(bad_forward_source, "ForwardPacket with an all-zero source key")                                     \
  X(write_timeout, "the socket refused output longer than the write timeout")                            \
  X(write_error, "the socket failed while writing")                                                      \
  X(control_overflow, "too many control frames queued for a client that does not read")                  \
  X(peer_closed, "a mesh peer or the operator asked to close the key")                                   \
  X(too_many_duplicates, "the oldest of more than 256 connections of one key")                           \
  X(link_frame_too_big, "a mesh link brought a frame over 1 MiB")                                        \
  X(link_timeout, "a mesh link brought nothing for 120 s")                                               \
  X(tls_failed, "TLS failed: a record that does not open, an alert, or a flood of records without data") \
  X(server_closed, "the relay closed")                                                                   \
  X(no_memory, "no memory for the connection's bytes")

enum class CloseReason : uint8_t {
#define DERPLANE_X(name, help) name,
  DERPLANE_CLOSE_REASONS(DERPLANE_X)
#undef DERPLANE_X
      count
};

inline constexpr uint32_t kCloseReasons = static_cast<uint32_t>(CloseReason::count);

inline const char* closeReasonName(CloseReason reason) {
  static constexpr const char* kNames[] = {
#define DERPLANE_X(name, help) #name,
      DERPLANE_CLOSE_REASONS(DERPLANE_X)
#undef DERPLANE_X
  };
  return kNames[static_cast<uint32_t>(reason)];
}

inline const char* closeReasonText(CloseReason reason) {
  static constexpr const char* kTexts[] = {
#define DERPLANE_X(name, help) help,
      DERPLANE_CLOSE_REASONS(DERPLANE_X)
#undef DERPLANE_X
  };
  return kTexts[static_cast<uint32_t>(reason)];
}

}  // namespace derplane
