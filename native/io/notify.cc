#include "notify.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "fd.h"

namespace derplane {

int notifyManager(const std::string& path, const std::string& text) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  // A path needs room for its terminator; an abstract name has none.
  const bool abstract = path.starts_with('@');
  if (path.empty() || path.size() + (abstract ? 0 : 1) > sizeof address.sun_path) return EINVAL;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (abstract) address.sun_path[0] = '\0';
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (abstract ? 0 : 1));
  const Fd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return errno;
  const timeval limit{.tv_sec = 0, .tv_usec = 100'000};
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) != 0) return errno;
  const auto* to = reinterpret_cast<const sockaddr*>(&address);
  while (::sendto(socket.get(), text.data(), text.size(), MSG_NOSIGNAL, to, size) < 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

}  // namespace derplane
