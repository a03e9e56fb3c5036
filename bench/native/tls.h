// TLS 1.3 for load and forwarder: sessions of the OpenSSL that `node` exports, which neither read nor write a socket.
// All sessions of a thread share one wire: whoever has received puts the bytes there, and sends what they left behind,
// so a turn costs one recv and one send however many records it is.
#pragma once

#include <openssl/ssl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace derplane_load {

// X25519, AES-128-GCM, full handshakes, no certificate verified: one and the same work with every relay.
class TlsContext {
 public:
  static TlsContext Client();
  // PEM. An error text in `error` when the two cannot be used.
  static TlsContext Server(const std::string& certificate, const std::string& key, std::string& error);

  // False, with the reason `kUnusable`, where OpenSSL cannot do exactly that.
  bool usable() const { return usable_; }
  static const char* const kUnusable;

  SSL_CTX* get() const { return context_.get(); }

 private:
  explicit TlsContext(const SSL_METHOD* method);

  struct Free {
    void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  };
  std::unique_ptr<SSL_CTX, Free> context_;
  bool usable_ = false;
};

// What sessions read and where they write; empty between two calls, but for output that is still to be sent.
struct TlsWire {
  const uint8_t* input = nullptr;
  size_t input_left = 0;
  std::vector<uint8_t> output;
};

class TlsSession {
 public:
  enum class Role { kClient, kServer };

  // The wire outlives the session.
  TlsSession(const TlsContext& context, Role role, TlsWire& wire);

  // A step of the handshake, or nothing once it is over. False when it failed.
  bool Advance();
  bool established() const { return established_; }

  // Opens what is on the wire, up to `room` bytes; -1 when the other side has closed or broke the protocol.
  ptrdiff_t Open(uint8_t* out, size_t room);

  // Seals at most `record` (up to 16 KiB) bytes a record onto the wire. False when the session is broken.
  bool Seal(const uint8_t* bytes, size_t count, size_t record = SSL3_RT_MAX_PLAIN_LENGTH);

  // Why a call has failed.
  std::string failure() const { return failure_; }

 private:
  bool Fail(int result);

  struct Free {
    void operator()(SSL* ssl) const { SSL_free(ssl); }
  };
  std::unique_ptr<SSL, Free> ssl_;
  std::string failure_;
  bool established_ = false;
};

}  // namespace derplane_load
