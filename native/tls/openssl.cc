#include "openssl.h"

namespace derplane {
namespace {

// AES-128 first: half the rounds of AES-256 are enough for what node-to-node encryption protects already. A client that
// prefers ChaCha20, since it has no AES instructions, gets it.
constexpr const char* kCiphers13 = "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384";
constexpr const char* kCiphers12 = "ECDHE+AESGCM:ECDHE+CHACHA20";
// Without X25519MLKEM768, which OpenSSL 3.5 would prefer: it costs 15% more per handshake, and what it would hide for
// the future is which nodes talk to each other, while the packets' contents are encrypted by the nodes.
constexpr const char* kGroups = "X25519:P-256:P-384";

}  // namespace

std::string takeOpenSslError() {
  const unsigned long code = ERR_peek_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  std::string text = reason == nullptr ? "unknown error" : reason;
  ERR_clear_error();
  return text;
}

SslCtx makeSslCtx(const SSL_METHOD* method) {
  SslCtx ctx(SSL_CTX_new(method));
  if (ctx == nullptr) return nullptr;
  SSL_CTX_set_min_proto_version(ctx.get(), TLS1_2_VERSION);
  SSL_CTX_set_options(ctx.get(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                     SSL_OP_PRIORITIZE_CHACHA | SSL_OP_NO_COMPRESSION);
  // A connection lives for days and none is resumed: nothing is kept for that. Without tickets, our sequence numbers
  // start at 0 after the handshake.
  SSL_CTX_set_session_cache_mode(ctx.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(ctx.get(), 0);
  // Idle connections own no record buffers; a chain is what its files say, never what OpenSSL finds.
  SSL_CTX_set_mode(ctx.get(), SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
  if (SSL_CTX_set_ciphersuites(ctx.get(), kCiphers13) != 1 || SSL_CTX_set_cipher_list(ctx.get(), kCiphers12) != 1 ||
      SSL_CTX_set1_groups_list(ctx.get(), kGroups) != 1) {
    return nullptr;
  }
  return ctx;
}

}  // namespace derplane
