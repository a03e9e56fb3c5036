#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "check.h"
#include "native/io/fd.h"
#include "native/io/inherited.h"
#include "native/io/notify.h"

using namespace derplane;

namespace {

Fd bound(int type) {
  Fd fd(::socket(AF_INET, type, 0));
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any), 0);
  return fd;
}

// A receiver at an abstract name that the kernel chooses; `name` gets it, `@` in front.
Fd receiver(std::string& name) {
  Fd fd(::socket(AF_UNIX, SOCK_DGRAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socklen_t size = sizeof(sa_family_t);
  CHECK_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), size), 0);
  size = sizeof address;
  CHECK_EQ(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  name = "@" + std::string(address.sun_path + 1, size - sizeof(sa_family_t) - 1);
  return fd;
}

}  // namespace

TEST("an inherited socket says what it is, and where it is bound") {
  const Fd tcp = bound(SOCK_STREAM);
  InheritedSocket found;
  CHECK_EQ(describeSocket(tcp.get(), found), 0);
  CHECK(found.type == SOCK_STREAM && !found.listening && found.address.starts_with("127.0.0.1:"));
  CHECK_EQ(::listen(tcp.get(), 1), 0);
  CHECK_EQ(describeSocket(tcp.get(), found), 0);
  CHECK(found.listening);
  const Fd udp = bound(SOCK_DGRAM);
  CHECK_EQ(describeSocket(udp.get(), found), 0);
  CHECK(found.type == SOCK_DGRAM && !found.listening);
  const Fd local(::socket(AF_UNIX, SOCK_STREAM, 0));
  CHECK_EQ(describeSocket(local.get(), found), 0);
  CHECK_EQ(found.address, "");
}

TEST("what is no socket is an error") {
  InheritedSocket found;
  const Fd file(::open("/dev/null", O_RDONLY));
  CHECK_EQ(describeSocket(file.get(), found), ENOTSOCK);
  CHECK_EQ(describeSocket(1'000'000, found), EBADF);
  CHECK_EQ(prepareInherited(1'000'000), EBADF);
}

TEST("an inherited socket becomes non-blocking, and stays out of other programs") {
  const Fd tcp = bound(SOCK_STREAM);
  CHECK_EQ(prepareInherited(tcp.get()), 0);
  CHECK((::fcntl(tcp.get(), F_GETFL) & O_NONBLOCK) != 0);
  CHECK((::fcntl(tcp.get(), F_GETFD) & FD_CLOEXEC) != 0);
}

TEST("a message to the service manager is one datagram") {
  std::string name;
  const Fd fd = receiver(name);
  CHECK_EQ(notifyManager(name, "READY=1\nSTATUS=x"), 0);
  char text[64];
  const ssize_t size = ::recv(fd.get(), text, sizeof text, MSG_DONTWAIT);
  CHECK_EQ(std::string(text, size < 0 ? 0 : static_cast<size_t>(size)), "READY=1\nSTATUS=x");
}

TEST("a service manager that is not there, does not read or has a bad name is an error, soon") {
  CHECK_EQ(notifyManager("/nonexistent/notify", "x"), ENOENT);
  CHECK_EQ(notifyManager("", "x"), EINVAL);
  CHECK_EQ(notifyManager(std::string(108, 'x'), "x"), EINVAL);
  std::string name;
  const Fd fd = receiver(name);
  int error = 0;
  for (int i = 0; i < 100'000 && error == 0; ++i) error = notifyManager(name, "x");
  CHECK_EQ(error, EAGAIN);
}
