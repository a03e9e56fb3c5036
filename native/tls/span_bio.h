// What OpenSSL takes for its connection: bytes that lie in memory on one side, a vector on the other. No system call,
// no copy but OpenSSL's own.
#pragma once

#include <openssl/bio.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace derplane {

struct SpanBio {
  const uint8_t* data = nullptr;
  size_t left = 0;
  bool blocked = false;  // OpenSSL is given nothing more
  std::vector<uint8_t>* output = nullptr;

  // A BIO on `span`, which must live longer. Null when memory is exhausted.
  static BIO* make(SpanBio* span);
};

}  // namespace derplane
