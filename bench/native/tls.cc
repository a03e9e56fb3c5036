#include "tls.h"

#include <openssl/err.h>

#include <algorithm>
#include <cstring>

namespace derplane_load {
namespace {

std::string LastError() {
  char text[256] = "no reason given";
  if (const unsigned long code = ERR_get_error(); code != 0) ERR_error_string_n(code, text, sizeof text);
  ERR_clear_error();
  return text;
}

TlsWire& WireOf(BIO* bio) { return *static_cast<TlsWire*>(BIO_get_data(bio)); }

int ReadWire(BIO* bio, char* out, int size) {
  TlsWire& wire = WireOf(bio);
  BIO_clear_retry_flags(bio);
  if (wire.input_left == 0) {
    BIO_set_retry_read(bio);
    return -1;
  }
  const size_t count = std::min(wire.input_left, static_cast<size_t>(size));
  memcpy(out, wire.input, count);
  wire.input += count;
  wire.input_left -= count;
  return static_cast<int>(count);
}

int WriteWire(BIO* bio, const char* bytes, int size) {
  std::vector<uint8_t>& output = WireOf(bio).output;
  const auto* const begin = reinterpret_cast<const uint8_t*>(bytes);
  output.insert(output.end(), begin, begin + size);
  return size;
}

long ControlWire(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

// Lives as long as the process, like the OpenSSL that it belongs to.
const BIO_METHOD* WireMethod() {
  static const BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "bench wire");
    BIO_meth_set_read(made, ReadWire);
    BIO_meth_set_write(made, WriteWire);
    BIO_meth_set_ctrl(made, ControlWire);
    return made;
  }();
  return method;
}

}  // namespace

const char* const TlsContext::kUnusable = "this OpenSSL refuses TLS 1.3 with AES-128-GCM and X25519";

TlsContext::TlsContext(const SSL_METHOD* method) : context_(SSL_CTX_new(method)) {
  SSL_CTX* const context = context_.get();
  usable_ = context != nullptr && SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 &&
            SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") == 1 &&
            SSL_CTX_set1_groups_list(context, "X25519") == 1;
  if (!usable_) return;
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
}

TlsContext TlsContext::Client() {
  TlsContext made(TLS_client_method());
  if (!made.usable_) return made;
  // The chain is not even looked at; the signature of the handshake is.
  SSL_CTX_set_cert_verify_callback(made.get(), [](X509_STORE_CTX*, void*) { return 1; }, nullptr);
  return made;
}

TlsContext TlsContext::Server(const std::string& certificate, const std::string& key, std::string& error) {
  TlsContext made(TLS_server_method());
  if (!made.usable_) {
    error = kUnusable;
    return made;
  }
  SSL_CTX_set_num_tickets(made.get(), 0);
  BIO* const certificate_bio = BIO_new_mem_buf(certificate.data(), static_cast<int>(certificate.size()));
  BIO* const key_bio = BIO_new_mem_buf(key.data(), static_cast<int>(key.size()));
  X509* const leaf = PEM_read_bio_X509(certificate_bio, nullptr, nullptr, nullptr);
  EVP_PKEY* const secret = PEM_read_bio_PrivateKey(key_bio, nullptr, nullptr, nullptr);
  const bool usable = leaf != nullptr && secret != nullptr && SSL_CTX_use_certificate(made.get(), leaf) == 1 &&
                      SSL_CTX_use_PrivateKey(made.get(), secret) == 1;
  if (!usable) error = "certificate or key: " + LastError();
  EVP_PKEY_free(secret);
  X509_free(leaf);
  BIO_free(key_bio);
  BIO_free(certificate_bio);
  return made;
}

TlsSession::TlsSession(const TlsContext& context, Role role, TlsWire& wire) : ssl_(SSL_new(context.get())) {
  BIO* const bio = BIO_new(WireMethod());
  BIO_set_data(bio, &wire);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_.get(), bio, bio);
  if (role == Role::kServer) {
    SSL_set_accept_state(ssl_.get());
  } else {
    SSL_set_connect_state(ssl_.get());
    SSL_set_tlsext_host_name(ssl_.get(), "localhost");
  }
}

bool TlsSession::Advance() {
  if (established_) return true;
  const int result = SSL_do_handshake(ssl_.get());
  if (result != 1) return Fail(result);
  established_ = true;
  return true;
}

ptrdiff_t TlsSession::Open(uint8_t* out, size_t room) {
  size_t have = 0;
  while (have < room) {
    size_t got = 0;
    const int result = SSL_read_ex(ssl_.get(), out + have, room - have, &got);
    if (result != 1) return Fail(result) ? static_cast<ptrdiff_t>(have) : -1;
    have += got;
  }
  return static_cast<ptrdiff_t>(have);
}

bool TlsSession::Seal(const uint8_t* bytes, size_t count, size_t record) {
  for (size_t at = 0; at < count; at += record) {
    const int result = SSL_write(ssl_.get(), bytes + at, static_cast<int>(std::min(record, count - at)));
    if (result > 0) continue;
    if (Fail(result)) failure_ = "TLS: output was refused";
    return false;
  }
  return true;
}

// True when the session only waits for more input.
bool TlsSession::Fail(int result) {
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_WANT_READ:
      return true;
    case SSL_ERROR_ZERO_RETURN:
      failure_ = "the other side closed the connection";
      return false;
    default:
      failure_ = "TLS: " + LastError();
      return false;
  }
}

}  // namespace derplane_load
