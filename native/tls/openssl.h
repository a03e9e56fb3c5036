// Owners of OpenSSL's objects, and what OpenSSL says went wrong. The library is the one inside `node`.
#pragma once

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <memory>
#include <string>

namespace derplane {

template <auto free_function>
struct OpenSslFree {
  template <typename T>
  void operator()(T* object) const {
    free_function(object);
  }
};

using SslCtx = std::unique_ptr<SSL_CTX, OpenSslFree<SSL_CTX_free>>;
using Ssl = std::unique_ptr<SSL, OpenSslFree<SSL_free>>;
using Bio = std::unique_ptr<BIO, OpenSslFree<BIO_free_all>>;
using X509Ptr = std::unique_ptr<X509, OpenSslFree<X509_free>>;
using PrivateKeyPtr = std::unique_ptr<EVP_PKEY, OpenSslFree<EVP_PKEY_free>>;

// The oldest error of this thread's queue in words, which says most; empties the queue, in which others would find it.
std::string takeOpenSslError();

// Empties this thread's queue of errors, in which what others left would be taken for ours. Nearly always there is
// nothing, and ERR_clear_error would walk the whole queue to find that out.
inline void forgetOpenSslErrors() {
  if (ERR_peek_error() != 0) ERR_clear_error();
}

// A context with what both roles share: TLS 1.2 and 1.3, AEAD ciphers, no renegotiation, no tickets. Null when memory
// is exhausted.
SslCtx makeSslCtx(const SSL_METHOD* method);

}  // namespace derplane
