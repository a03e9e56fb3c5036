// Sockets that the parent process opened for this one.
#pragma once

#include <string>

namespace derplane {

struct InheritedSocket {
  int type = 0;            // SOCK_STREAM, SOCK_DGRAM, ...
  bool listening = false;  // a stream socket that accepts connections
  std::string address;     // where it is bound, `ip:port`; empty when it is no IP socket
};

// 0, or an errno: EBADF when the descriptor does not exist, ENOTSOCK when it is something else.
int describeSocket(int fd, InheritedSocket& found);

// Makes a descriptor ready for a loop: non-blocking, and closed in programs that this one starts. 0 or an errno.
int prepareInherited(int fd);

}  // namespace derplane
