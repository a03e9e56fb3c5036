#include "inherited.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>

#include "address.h"

namespace derplane {

int describeSocket(int fd, InheritedSocket& found) {
  socklen_t size = sizeof found.type;
  if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &found.type, &size) != 0) return errno;
  int accepts = 0;
  size = sizeof accepts;
  if (::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &size) != 0) return errno;
  found.listening = accepts != 0;
  sockaddr_storage storage{};
  size = sizeof storage;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return errno;
  const bool is_ip = storage.ss_family == AF_INET || storage.ss_family == AF_INET6;
  found.address = is_ip ? addressText(toAddress(storage)) : "";
  return 0;
}

int prepareInherited(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) return errno;
  return ::fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 ? 0 : errno;
}

}  // namespace derplane
