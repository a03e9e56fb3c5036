// Socket addresses: between the kernel's form, ours (IPv4 as v4-in-v6) and text.
#pragma once

#include <sys/socket.h>

#include <string>

#include "../core/client.h"

namespace derplane {

Address toAddress(const sockaddr_storage& storage);

// Of 4 bytes.
Address v4Address(const void* ip, uint16_t port);

// Whether it is an IPv4 address.
bool isV4(const Address& address);

// Address and port of the peer of a connected socket; all zero when it has none (a socketpair).
Address peerAddress(int fd);

// Our own address of a connected socket without its port, IPv4 never as v4-in-v6; empty when it has none.
std::string localAddressText(int fd);

// Whether a text is a numeric address, IPv6 without brackets.
bool isIpAddress(const std::string& text);

// `192.0.2.1:443` or `[2001:db8::1]:443`; IPv4 never as v4-in-v6; empty for an unknown address.
std::string addressText(const Address& address);

// The reverse of addressText; anything else gives an unknown address.
Address parseAddress(const std::string& text);

}  // namespace derplane
