// The TLS of a client on its shard.
#pragma once

#include <memory>
#include <vector>

#include "../core/counters.h"
#include "secure_session.h"

namespace derplane {

struct TlsChannel {
  Counter gauge() const { return session->isTls13() ? Counter::tls13_connections : Counter::tls12_connections; }

  std::unique_ptr<SecureSession> session;
  // Sealed bytes that the kernel did not take. They cannot be dropped: the other side counts records.
  std::vector<uint8_t> unsent;
  // How the last read of the session ended; anything but kWantBytes ends the connection once its bytes are consumed.
  SecureSession::Status status = SecureSession::Status::kWantBytes;
  bool read_once = false;  // by this shard: until then the session may hold what came in the handshake
};

}  // namespace derplane
