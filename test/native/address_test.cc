#include "native/io/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include "check.h"
#include "native/io/fd.h"

using namespace derplane;

namespace {

bool unknown(const Address& address) { return addressText(address).empty(); }

}  // namespace

TEST("addresses and their text are each other's reverse") {
  for (const char* text :
       {"192.0.2.1:443", "0.0.0.0:1", "255.255.255.255:65535", "[2001:db8::1]:443", "[::1]:0", "[fe80::1]:9"}) {
    CHECK_EQ(addressText(parseAddress(text)), text);
  }
}

TEST("IPv4 is written as IPv4, also where it came as v4-in-v6") {
  CHECK_EQ(addressText(parseAddress("[::ffff:192.0.2.1]:443")), "192.0.2.1:443");
}

TEST("what is no address and port is an unknown address") {
  for (const char* text :
       {"", ":", "1.2.3.4", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:-1", "1.2.3.4:80abc", "1.2.3.4: 80", "1.2.3.4:+80",
        "1.2.3:80", "host:80", "[::1]", "[::1:80", "[]:80", "1.2.3.4:99999999999999999999"}) {
    check::note(text);
    CHECK(unknown(parseAddress(text)));
  }
}

TEST("a socketpair has no address, a TCP socket that of its peer") {
  int pair[2];
  CHECK_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  const Fd a(pair[0]), b(pair[1]);
  CHECK(unknown(peerAddress(a.get())));
  CHECK(unknown(peerAddress(-1)));

  const Fd listener(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  CHECK_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  CHECK_EQ(::listen(listener.get(), 1), 0);
  CHECK_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  const Fd client(::socket(AF_INET, SOCK_STREAM, 0));
  CHECK_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  CHECK_EQ(addressText(peerAddress(client.get())), "127.0.0.1:" + std::to_string(ntohs(address.sin_port)));
}
