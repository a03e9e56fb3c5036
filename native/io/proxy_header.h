// The PROXY protocol, versions 1 and 2 (HAProxy's specification): what a proxy sends in front of a connection to tell
// the client's address.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "../core/client.h"

namespace derplane {

struct ProxyHeader {
  enum class State {
    kNone,     // the bytes begin with something else
    kMore,     // a header may be there; more bytes tell
    kBad,      // a header that is malformed
    kLocal,    // a header without a client: the proxy speaks for itself, or does not tell
    kAddress,  // a header with a client
  };
  State state = State::kNone;
  size_t size = 0;  // bytes of the header, with kLocal and kAddress
  Address client = {};
};

// Bytes that a header may have, extensions included; a longer one is malformed.
inline constexpr size_t kMaxProxyHeader = 4096;

ProxyHeader readProxyHeader(std::span<const uint8_t> bytes);

}  // namespace derplane
