#include "tls_server.h"

#include <openssl/pem.h>

#include <algorithm>

#include "../io/address.h"
#include "tls_session.h"

namespace derplane {
namespace {

constexpr char kHttp1[] = "http/1.1";
constexpr char kAcmeTls1[] = "acme-tls/1";

std::string lowerCase(std::string name) {
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return name;
}

// A cursor over a TLS vector; every read says whether there were enough bytes.
struct Bytes {
  const uint8_t* at;
  size_t left;

  bool take(size_t size, Bytes& part) {
    if (left < size) return false;
    part = {at, size};
    at += size;
    left -= size;
    return true;
  }
  // A vector with its length in front, which takes `width` bytes.
  bool takeVector(size_t width, Bytes& part) {
    Bytes head{};
    if (!take(width, head)) return false;
    size_t size = 0;
    for (size_t i = 0; i < width; ++i) size = size << 8 | head.at[i];
    return take(size, part);
  }
  std::string text() const { return {reinterpret_cast<const char*>(at), left}; }
};

bool extension(SSL* ssl, unsigned int type, Bytes& bytes) {
  return SSL_client_hello_get0_ext(ssl, type, &bytes.at, &bytes.left) == 1;
}

Bio textBio(const std::string& text) { return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

// No prompt on the terminal for an encrypted key.
int refusePassword(char*, int, int, void*) { return -1; }

bool readKey(const std::string& pem, PrivateKeyPtr& key, std::string& error) {
  key.reset(PEM_read_bio_PrivateKey(textBio(pem).get(), nullptr, refusePassword, nullptr));
  if (key != nullptr) return true;
  const bool encrypted = pem.find("ENCRYPTED") != std::string::npos;
  error = encrypted ? "the key is encrypted, it must not be" : "the key is no PEM private key: " + takeOpenSslError();
  ERR_clear_error();
  return false;
}

bool readChain(const std::string& pem, std::vector<X509Ptr>& chain, std::string& error) {
  const Bio bio = textBio(pem);
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, refusePassword, nullptr)) {
    chain.emplace_back(certificate);
  }
  // The search for one more ends with "no start line".
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  if (!chain.empty() && at_end) {
    ERR_clear_error();
    return true;
  }
  error =
      chain.empty() && at_end ? "there is no PEM certificate" : "a certificate is unreadable: " + takeOpenSslError();
  ERR_clear_error();
  return false;
}

bool addCertificate(SSL_CTX* ctx, const CertificatePem& pem, std::string& error) {
  PrivateKeyPtr key;
  std::vector<X509Ptr> chain;
  if (!readKey(pem.key, key, error) || !readChain(pem.chain, chain, error)) return false;
  if (X509_check_private_key(chain[0].get(), key.get()) != 1) {
    ERR_clear_error();
    error = "the key does not belong to the certificate";
    return false;
  }
  bool ok = SSL_CTX_use_certificate(ctx, chain[0].get()) == 1 && SSL_CTX_use_PrivateKey(ctx, key.get()) == 1;
  for (size_t i = 1; ok && i < chain.size(); ++i) ok = SSL_CTX_add1_chain_cert(ctx, chain[i].get()) == 1;
  if (!ok) error = takeOpenSslError();
  return ok;
}

}  // namespace

std::shared_ptr<TlsServer> TlsServer::make() {
  std::shared_ptr<TlsServer> server(new TlsServer);
  server->base_ = makeSslCtx(TLS_server_method());
  if (server->base_ == nullptr) return nullptr;
  SSL_CTX_set_client_hello_cb(server->base_.get(), onClientHello, server.get());
  SSL_CTX_set_alpn_select_cb(server->base_.get(), onAlpn, nullptr);
  return server;
}

TlsServer::CtxPtr TlsServer::makeIdentity(const std::vector<CertificatePem>& certificates, std::string& error) {
  SslCtx ctx = makeSslCtx(TLS_server_method());
  if (ctx == nullptr) {
    error = takeOpenSslError();
    return nullptr;
  }
  if (certificates.empty()) {
    error = "there is no certificate";
    return nullptr;
  }
  for (const CertificatePem& pem : certificates) {
    if (!addCertificate(ctx.get(), pem, error)) return nullptr;
  }
  SSL_CTX_set_alpn_select_cb(ctx.get(), onAlpn, nullptr);
  return CtxPtr(ctx.release(), SSL_CTX_free);
}

bool TlsServer::set(const std::string& name, const std::vector<CertificatePem>& certificates, std::string& error) {
  CtxPtr identity = makeIdentity(certificates, error);
  if (identity == nullptr) return false;
  {
    const std::lock_guard lock(mutex_);
    identities_[lowerCase(name)] = std::move(identity);
    forgetAsked(lowerCase(name));
  }
  changed();
  return true;
}

void TlsServer::remove(const std::string& name) {
  const std::lock_guard lock(mutex_);
  identities_.erase(lowerCase(name));
  // A handshake that looked before the certificate came may have asked after it.
  forgetAsked(lowerCase(name));
}

bool TlsServer::setChallenge(const std::string& name, const CertificatePem& certificate, std::string& error) {
  CtxPtr identity = makeIdentity({certificate}, error);
  if (identity == nullptr) return false;
  const std::lock_guard lock(mutex_);
  challenges_[lowerCase(name)] = std::move(identity);
  return true;
}

void TlsServer::removeChallenge(const std::string& name) {
  const std::lock_guard lock(mutex_);
  challenges_.erase(lowerCase(name));
}

void TlsServer::expect(const std::string& name) {
  const std::lock_guard lock(mutex_);
  expected_.insert(lowerCase(name));
  forgetAsked(lowerCase(name));
}

void TlsServer::unexpect(const std::string& name) {
  {
    const std::lock_guard lock(mutex_);
    expected_.erase(lowerCase(name));
    forgetAsked(lowerCase(name));
  }
  changed();
}

// What kAnyName expects has been asked for by the names of addresses.
void TlsServer::forgetAsked(const std::string& name) {
  asked_.erase(name);
  if (name == kAnyName) std::erase_if(asked_, [this](const std::string& each) { return !expected_.contains(each); });
}

bool TlsServer::setMeta(uint32_t relay, const uint8_t* der, size_t size, std::string& error) {
  X509Ptr meta(d2i_X509(nullptr, &der, static_cast<long>(size)));
  if (meta == nullptr) {
    error = takeOpenSslError();
    return false;
  }
  const std::lock_guard lock(mutex_);
  metas_[relay] = std::move(meta);
  return true;
}

void TlsServer::removeMeta(uint32_t relay) {
  const std::lock_guard lock(mutex_);
  metas_.erase(relay);
}

std::unique_ptr<SecureSession> TlsServer::accept(const std::string& local_address, uint32_t relay) {
  Ssl ssl(SSL_new(base_.get()));
  if (ssl == nullptr) return nullptr;
  SSL_set_accept_state(ssl.get());
  std::unique_ptr<TlsSession> session = TlsSession::make(std::move(ssl));
  if (session != nullptr) session->setOrigin(local_address, relay);
  return session;
}

bool TlsServer::askFor(const std::string& name) {
  const std::lock_guard lock(mutex_);
  return asked_.insert(name).second;
}

int TlsServer::onClientHello(SSL* ssl, int* alert, void* self) {
  return static_cast<TlsServer*>(self)->answer(ssl, alert);
}

int TlsServer::answer(SSL* ssl, int* alert) {
  TlsSession& session = TlsSession::of(ssl);
  *alert = SSL_AD_INTERNAL_ERROR;  // derper's answer to a name that it does not serve
  Hello hello;
  if (!readHello(ssl, hello)) {
    *alert = SSL_AD_DECODE_ERROR;
    session.setFailure("the client's greeting is malformed");
    return SSL_CLIENT_HELLO_ERROR;
  }
  std::string awaited;
  const CtxPtr identity = find(hello, session.localAddress(), awaited);
  if (identity != nullptr && use(ssl, identity.get(), session.relay())) return SSL_CLIENT_HELLO_SUCCESS;
  if (!awaited.empty()) {
    session.setWanted(std::move(awaited));
    return SSL_CLIENT_HELLO_RETRY;
  }
  session.setFailure(hello.name.empty() ? "the client names no server (no SNI), and a name is needed"
                                        : "no certificate for the name that the client asks for");
  return SSL_CLIENT_HELLO_ERROR;
}

// Server name (RFC 6066, 3) and protocols (RFC 7301, 3.1).
bool TlsServer::readHello(SSL* ssl, Hello& hello) {
  Bytes bytes{};
  Bytes list{};
  if (extension(ssl, TLSEXT_TYPE_server_name, bytes)) {
    Bytes type{};
    Bytes name{};
    if (!bytes.takeVector(2, list) || !list.take(1, type) || type.at[0] != TLSEXT_NAMETYPE_host_name ||
        !list.takeVector(2, name)) {
      return false;
    }
    hello.name = lowerCase(name.text());
  }
  if (extension(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, bytes)) {
    if (!bytes.takeVector(2, list)) return false;
    for (Bytes protocol{}; list.left > 0;) {
      if (!list.takeVector(1, protocol)) return false;
      hello.challenge = hello.challenge || protocol.text() == kAcmeTls1;
    }
  }
  return true;
}

TlsServer::CtxPtr TlsServer::find(const Hello& hello, const std::string& local_address, std::string& awaited) {
  const auto lookUp = [](const auto& map, const std::string& name) -> CtxPtr {
    const auto it = map.find(name);
    return it == map.end() ? nullptr : it->second;
  };
  const bool by_address = hello.name.empty() || hello.name == local_address;
  const std::string& name = by_address ? local_address : hello.name;
  const std::lock_guard lock(mutex_);
  if (hello.challenge) return lookUp(challenges_, hello.name);
  // An address may be asked for by name only where it is the connection's.
  if (by_address || !isIpAddress(name)) {
    if (CtxPtr identity = lookUp(identities_, name)) return identity;
    if (isExpected(name, by_address)) {
      awaited = name;
      return nullptr;
    }
  }
  return lookUp(identities_, kAnyName);
}

bool TlsServer::isExpected(const std::string& name, bool is_address) const {
  return !name.empty() && (expected_.contains(name) || (is_address && expected_.contains(kAnyName)));
}

bool TlsServer::use(SSL* ssl, SSL_CTX* identity, uint32_t relay) {
  if (SSL_set_SSL_CTX(ssl, identity) == nullptr) return false;
  X509* meta = nullptr;
  {
    const std::lock_guard lock(mutex_);
    const auto it = metas_.find(relay);
    if (it != metas_.end()) meta = it->second.get();
    if (meta != nullptr) X509_up_ref(meta);
  }
  if (meta == nullptr) return true;
  const X509Ptr keep(meta);
  for (long next = SSL_CERT_SET_FIRST; SSL_set_current_cert(ssl, next) == 1; next = SSL_CERT_SET_NEXT) {
    if (SSL_add1_chain_cert(ssl, meta) != 1) return false;
  }
  return true;
}

int TlsServer::onAlpn(SSL*, const uint8_t** out, uint8_t* out_size, const uint8_t* in, unsigned int in_size, void*) {
  bool offered = false;
  for (Bytes list{in, in_size}, protocol{}; list.left > 0;) {
    if (!list.takeVector(1, protocol)) return SSL_TLSEXT_ERR_ALERT_FATAL;
    const std::string name = protocol.text();
    if (name != kHttp1 && name != kAcmeTls1) continue;
    *out = protocol.at;
    *out_size = static_cast<uint8_t>(protocol.left);
    if (name == kAcmeTls1) return SSL_TLSEXT_ERR_OK;
    offered = true;
  }
  // RFC 7301, 3.2: we support none of the offered protocols.
  return offered ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

}  // namespace derplane
