// Who we are to those who connect over TLS: certificates by name, changed at any moment by the control plane, read by
// handshakes on any thread.
#pragma once

#include <atomic>
#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "../io/secure_session.h"
#include "openssl.h"

namespace derplane {

class TlsSession;

// PEM texts of a certificate chain, the leaf first, and of its key.
struct CertificatePem {
  std::string chain;
  std::string key;
};

class TlsServer final : public SecureServer {
 public:
  // The name that stands for every name; in expect(): for every address of this host.
  static constexpr const char* kAnyName = "*";

  // Null when memory is exhausted.
  static std::shared_ptr<TlsServer> make();

  // Answers `name` (lower case) with these from now on; of several the first that suits the client. False, with `error`
  // saying why, when one does not work: then everything stays as it was.
  bool set(const std::string& name, const std::vector<CertificatePem>& certificates, std::string& error);
  void remove(const std::string& name);
  // The same for TLS-ALPN-01 validations of a name (RFC 8737).
  bool setChallenge(const std::string& name, const CertificatePem& certificate, std::string& error);
  void removeChallenge(const std::string& name);
  // Handshakes for `name` wait for its certificate.
  void expect(const std::string& name);
  void unexpect(const std::string& name);
  // A certificate, DER, that is sent behind every chain by the relay of that number: it tells its key in it.
  bool setMeta(uint32_t relay, const uint8_t* der, size_t size, std::string& error);
  void removeMeta(uint32_t relay);

  std::unique_ptr<SecureSession> accept(const std::string& local_address, uint32_t relay) override;
  bool askFor(const std::string& name) override;
  uint64_t version() const override { return version_.load(std::memory_order_acquire); }

 private:
  using CtxPtr = std::shared_ptr<SSL_CTX>;
  struct Hello {
    std::string name;  // lower case; empty: none was sent
    bool challenge = false;
  };

  TlsServer() = default;
  static int onClientHello(SSL* ssl, int* alert, void* self);
  static int onAlpn(SSL* ssl, const uint8_t** out, uint8_t* out_size, const uint8_t* in, unsigned int in_size, void*);
  static bool readHello(SSL* ssl, Hello& hello);
  static CtxPtr makeIdentity(const std::vector<CertificatePem>& certificates, std::string& error);
  int answer(SSL* ssl, int* alert);
  CtxPtr find(const Hello& hello, const std::string& local_address, std::string& awaited);
  bool isExpected(const std::string& name, bool is_address) const;
  bool use(SSL* ssl, SSL_CTX* identity, uint32_t relay);
  void forgetAsked(const std::string& name);
  void changed() { version_.fetch_add(1, std::memory_order_release); }

  SslCtx base_;
  mutable std::mutex mutex_;
  std::unordered_map<std::string, CtxPtr> identities_;
  std::unordered_map<std::string, CtxPtr> challenges_;
  std::unordered_set<std::string> expected_;
  std::unordered_set<std::string> asked_;        // names of expected_, and addresses of this host
  std::unordered_map<uint32_t, X509Ptr> metas_;  // by relay
  std::atomic<uint64_t> version_{0};
};

}  // namespace derplane
