// A TLS connection on OpenSSL, in either role.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "../io/secure_session.h"
#include "hello_guard.h"
#include "openssl.h"
#include "span_bio.h"

namespace derplane {

class TlsSession final : public SecureSession {
 public:
  // Owns `ssl`, which has its role. Null when memory is exhausted.
  static std::unique_ptr<TlsSession> make(Ssl ssl);
  // The session of an SSL, for OpenSSL's callbacks.
  static TlsSession& of(const SSL* ssl);

  void setOutput(std::vector<uint8_t>* output) override { span_.output = output; }
  void feed(const uint8_t* data, size_t size) override;
  Status read(uint8_t* to, size_t room, size_t& got) override;
  size_t write(const iovec* iov, uint32_t count, size_t max) override;
  void shutdown() override;
  bool established() const override { return SSL_is_init_finished(ssl_.get()) == 1; }
  bool isTls13() const override { return SSL_version(ssl_.get()) == TLS1_3_VERSION; }
  const std::string& failure() const override { return failure_; }
  const std::string& wanted() const override { return wanted_; }

  // The rest concerns the handshake, and the control plane.
  // Goes on with the handshake as far as what was fed allows; kOk: established.
  Status handshake();
  void setWanted(std::string name) { wanted_ = std::move(name); }
  void setFailure(std::string why) { failure_ = std::move(why); }
  // Of a connection to a listener: the address that it came to, and the number of the relay that listens.
  void setOrigin(std::string local_address, uint32_t relay) {
    local_address_ = std::move(local_address);
    relay_ = relay;
  }
  uint32_t relay() const { return relay_; }
  const std::string& localAddress() const { return local_address_; }
  bool ended() const { return ended_; }
  // The session keeps its output itself, beginning with `output`, until setOutput says otherwise.
  void keepOutput(std::vector<uint8_t> output) {
    own_output_ = std::move(output);
    span_.output = &own_output_;
  }
  std::vector<uint8_t> takeOutput() { return std::exchange(own_output_, {}); }
  // Certificates of the other side, DER, the leaf first.
  std::vector<std::vector<uint8_t>> peerCertificates() const;

 private:
  // Records that bring no data (KeyUpdate, attempts to renegotiate, warnings): as many in a row as Go's library bears.
  static constexpr uint32_t kMaxUselessInARow = 16;
  // And as many in all until records of data made up for them. Peers change keys once in millions of records.
  static constexpr uint32_t kMaxUselessOwed = 64;
  static constexpr uint32_t kDataPerUselessRecord = 256;

  // Bytes that a handshake may take from the other side: a ClientHello has 2 kB, a chain of certificates rarely 10.
  static constexpr size_t kMaxHandshakeBytes = 64 << 10;

  explicit TlsSession(Ssl ssl) : ssl_(std::move(ssl)) {}
  static void onMessage(int write, int version, int type, const void* data, size_t size, SSL* ssl, void* self);
  Status statusOf(int result);
  Status fail(std::string why);
  void keepUnread();

  Ssl ssl_;
  SpanBio span_;
  HelloGuard hello_guard_;  // of the server's role
  std::vector<uint8_t> own_output_;
  std::vector<uint8_t> unread_;  // what a suspended handshake left
  size_t handshake_bytes_ = 0;
  uint32_t useless_in_a_row_ = 0;
  uint32_t useless_owed_ = 0;
  uint32_t data_records_ = 0;
  uint32_t relay_ = 0;
  bool failed_ = false;
  bool ended_ = false;
  std::string failure_;
  std::string wanted_;
  std::string local_address_;
};

}  // namespace derplane
