#include "certificate.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <memory>

namespace derplane_load {
namespace {

constexpr long kDaySeconds = 24 * 60 * 60;

template <class T, void (*free)(T*)>
struct Free {
  void operator()(T* object) const { free(object); }
};
using KeyPointer = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY, EVP_PKEY_free>>;
using X509Pointer = std::unique_ptr<X509, Free<X509, X509_free>>;
using ExtensionPointer = std::unique_ptr<X509_EXTENSION, Free<X509_EXTENSION, X509_EXTENSION_free>>;

bool AddExtension(X509* x509, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, x509, x509, nullptr, nullptr, 0);
  const ExtensionPointer extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value));
  return extension != nullptr && X509_add_ext(x509, extension.get(), -1) == 1;
}

bool Fill(X509* x509, EVP_PKEY* key) {
  uint64_t serial = 0;
  RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof serial);
  X509_NAME* const name = X509_get_subject_name(x509);
  const auto* const host = reinterpret_cast<const unsigned char*>("127.0.0.1");
  return X509_set_version(x509, X509_VERSION_3) == 1 &&
         ASN1_INTEGER_set_uint64(X509_get_serialNumber(x509), serial >> 1) == 1 &&
         X509_gmtime_adj(X509_getm_notBefore(x509), 0) != nullptr &&
         X509_gmtime_adj(X509_getm_notAfter(x509), kDaySeconds) != nullptr &&
         X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, host, -1, -1, 0) == 1 &&
         X509_set_issuer_name(x509, name) == 1 && X509_set_pubkey(x509, key) == 1 &&
         AddExtension(x509, NID_basic_constraints, "critical,CA:FALSE") &&
         AddExtension(x509, NID_subject_alt_name, "IP:127.0.0.1") && X509_sign(x509, key, EVP_sha256()) > 0;
}

template <class Write>
std::string Pem(Write&& write) {
  BIO* const bio = BIO_new(BIO_s_mem());
  std::string text;
  char* bytes = nullptr;
  if (write(bio) == 1) {
    const long size = BIO_get_mem_data(bio, &bytes);
    text.assign(bytes, static_cast<size_t>(size));
  }
  BIO_free(bio);
  return text;
}

}  // namespace

Certificate MakeCertificate(std::string& error) {
  const KeyPointer key(EVP_EC_gen("P-256"));
  const X509Pointer x509(X509_new());
  Certificate made;
  if (key != nullptr && x509 != nullptr && Fill(x509.get(), key.get())) {
    made.certificate = Pem([&](BIO* bio) { return PEM_write_bio_X509(bio, x509.get()); });
    made.key =
        Pem([&](BIO* bio) { return PEM_write_bio_PrivateKey(bio, key.get(), nullptr, nullptr, 0, nullptr, nullptr); });
  }
  if (made.certificate.empty() || made.key.empty()) error = "OpenSSL cannot make a self-signed certificate";
  return made;
}

}  // namespace derplane_load
