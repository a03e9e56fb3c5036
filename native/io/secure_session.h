// The encryption of one connection as I/O sees it: bytes of the network on one side, plaintext on the other, and no
// socket. native/tls implements it; tests may do without.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace derplane {

// Belongs to one thread at a time and may move between threads.
class SecureSession {
 public:
  enum class Status {
    kOk,
    kWantBytes,        // more must come from the network
    kWantCertificate,  // the name that the client asked for will get a certificate: read() again then
    kEnd,              // the other side said that it sends nothing more
    kFailed,           // see failure(); what is in the output then is the alert
  };

  // A session never has more than this of a record's plaintext in it, so a read may bring as much more than was fed.
  static constexpr size_t kMaxRecord = 16 << 10;
  // Memory that a handshake takes until it is done, the other side's bytes apart: OpenSSL's buffers, mostly.
  static constexpr size_t kHandshakeMemory = 48 << 10;

  virtual ~SecureSession() = default;

  // Where bytes for the network go; each call below may append to it. The caller sends them, in order, and empties it.
  virtual void setOutput(std::vector<uint8_t>* output) = 0;

  // Bytes of the network. They must stay where they are until a read() returns something other than kOk.
  virtual void feed(const uint8_t* data, size_t size) = 0;

  // Goes on with the handshake, then gives up to `room` bytes of plaintext; `got` is above 0 exactly with kOk.
  virtual Status read(uint8_t* to, size_t room, size_t& got) = 0;

  // Seals plaintext in the order of `iov`, at most `max` bytes of it, and returns how many; 0 when that failed. Only
  // once established.
  virtual size_t write(const iovec* iov, uint32_t count, size_t max) = 0;

  // Says that we send nothing more.
  virtual void shutdown() = 0;

  virtual bool established() const = 0;
  // Whether TLS 1.3 was agreed on; else it is 1.2. Only once established.
  virtual bool isTls13() const = 0;
  // What went wrong, one line.
  virtual const std::string& failure() const = 0;
  // The name for which a handshake waits.
  virtual const std::string& wanted() const = 0;
};

// Makes sessions for connections that others open to us. Any thread.
class SecureServer {
 public:
  virtual ~SecureServer() = default;
  // `local_address`: the address that the client connected to, as text; `relay`: the number of the relay that listens.
  // Null when memory is exhausted.
  virtual std::unique_ptr<SecureSession> accept(const std::string& local_address, uint32_t relay) = 0;
  // True for the first request since the certificate was last missing: the caller must report that one.
  virtual bool askFor(const std::string& name) = 0;
  // Rises whenever a handshake that waits for a certificate may go on.
  virtual uint64_t version() const = 0;
};

}  // namespace derplane
