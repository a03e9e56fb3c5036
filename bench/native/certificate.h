// The certificate that all relays of a bench serve.
#pragma once

#include <string>

namespace derplane_load {

struct Certificate {
  std::string certificate;  // PEM
  std::string key;          // PEM, PKCS #8
};

// Self-signed, ECDSA P-256, for 127.0.0.1, valid from now for a day. An error text in `error` when OpenSSL refuses.
Certificate MakeCertificate(std::string& error);

}  // namespace derplane_load
