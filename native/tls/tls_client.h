// Trusted certificates for outgoing TLS connections, and TLS sessions in the client's role.
#pragma once

#include <memory>
#include <string>

#include "openssl.h"
#include "tls_session.h"

namespace derplane {

class TlsClient {
 public:
  struct Target {
    // Sent as SNI; empty: none.
    std::string server_name;
    // Whether the certificate must be for a name or address, from a trusted authority. If false, nothing is verified.
    bool verify = true;
    std::string verify_host;
  };

  // `roots`: PEM certificates. Unreadable ones are passed over as long as one is left; else null, with `error` set.
  static std::unique_ptr<TlsClient> make(const std::string& roots, std::string& error);

  // The session of a connection that we opened; null with `error` set when the target does not fit TLS.
  std::unique_ptr<TlsSession> connect(const Target& target, std::string& error);

 private:
  explicit TlsClient(SslCtx ctx) : ctx_(std::move(ctx)) {}

  SslCtx ctx_;
};

}  // namespace derplane
