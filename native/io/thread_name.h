// The name of the calling thread, as `top -H` and debuggers show it.
#pragma once

#include <pthread.h>

#include <string>

namespace derplane {

// Linux keeps 15 bytes.
inline constexpr size_t kMaxThreadName = 15;

inline void nameThisThread(const std::string& name) {
  ::pthread_setname_np(::pthread_self(), name.substr(0, kMaxThreadName).c_str());
}

}  // namespace derplane
