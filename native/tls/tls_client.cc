#include "tls_client.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "../io/address.h"

namespace derplane {
namespace {

// Adds every certificate of a bundle; returns how many there were.
size_t addRoots(X509_STORE* store, const std::string& pem) {
  size_t added = 0;
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  for (;;) {
    const X509Ptr root(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
    if (root != nullptr) {
      if (X509_STORE_add_cert(store, root.get()) == 1) ++added;
    } else if (BIO_eof(bio.get())) {
      break;
    } else if (ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE) {
      break;
    }
    ERR_clear_error();
  }
  ERR_clear_error();
  return added;
}

}  // namespace

std::unique_ptr<TlsClient> TlsClient::make(const std::string& roots, std::string& error) {
  SslCtx ctx = makeSslCtx(TLS_client_method());
  if (ctx == nullptr) {
    error = takeOpenSslError();
    return nullptr;
  }
  if (!roots.empty() && addRoots(SSL_CTX_get_cert_store(ctx.get()), roots) == 0) {
    error = "there is no PEM certificate among the roots";
    return nullptr;
  }
  // As in Go: any certificate among them is trusted, an intermediate too.
  X509_STORE_set_flags(SSL_CTX_get_cert_store(ctx.get()), X509_V_FLAG_PARTIAL_CHAIN);
  return std::unique_ptr<TlsClient>(new TlsClient(std::move(ctx)));
}

std::unique_ptr<TlsSession> TlsClient::connect(const Target& target, std::string& error) {
  Ssl ssl(SSL_new(ctx_.get()));
  if (ssl == nullptr) {
    error = takeOpenSslError();
    return nullptr;
  }
  SSL_set_connect_state(ssl.get());
  bool ok = target.server_name.empty() || SSL_set_tlsext_host_name(ssl.get(), target.server_name.c_str()) == 1;
  if (target.verify) {
    // To OpenSSL no name is any name, and a dot in front stands for every name behind it.
    if (target.verify_host.empty() || target.verify_host.front() == '.') {
      error = "no certificate can be for it";
      return nullptr;
    }
    X509_VERIFY_PARAM* param = SSL_get0_param(ssl.get());
    // As browsers and Go: names come from the subject alternative names only.
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    ok = ok && (isIpAddress(target.verify_host)
                    ? X509_VERIFY_PARAM_set1_ip_asc(param, target.verify_host.c_str()) == 1
                    : X509_VERIFY_PARAM_set1_host(param, target.verify_host.c_str(), target.verify_host.size()) == 1);
    SSL_set_verify(ssl.get(), SSL_VERIFY_PEER, nullptr);
  }
  if (!ok) {
    error = takeOpenSslError();
    return nullptr;
  }
  return TlsSession::make(std::move(ssl));
}

}  // namespace derplane
