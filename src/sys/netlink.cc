#include "sys/netlink.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "base/error.h"
#include "base/owned.h"
#include "base/text.h"
#include "sys/lock.h"

namespace kelp::sys {

namespace {

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;
};

Address make_address(const std::string& ip, std::uint16_t port) {
  Address address;
  if (is_ipv6(ip)) {
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    ::inet_pton(AF_INET6, ip.c_str(), &v6->sin6_addr);
    address.length = sizeof *v6;
    return address;
  }
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
  v4->sin_family = AF_INET;
  v4->sin_port = htons(port);
  if (!ip.empty() && ::inet_pton(AF_INET, ip.c_str(), &v4->sin_addr) != 1)
    throw_usage("{} is not an IP address", quoted(ip));
  address.length = sizeof *v4;
  return address;
}

Fd bound_socket(const std::string& ip, std::uint16_t port, bool udp) {
  const Address address = make_address(ip, port);
  Fd fd(::socket(address.storage.ss_family, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0));
  if (!fd) throw_errno("make a socket");
  // As slirp4netns does: a connection of an earlier container in TIME_WAIT must not look like a taken port.
  const int on = 1;
  if (!udp) ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.length) < 0) return Fd();
  if (!udp && ::listen(fd.get(), 1) < 0) return Fd();
  return fd;
}

}  // namespace

std::vector<HostAddress> host_addresses() {
  ifaddrs* head = nullptr;
  if (::getifaddrs(&head) < 0) throw_errno("list the addresses of this host");
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(head, ::freeifaddrs);
  std::vector<HostAddress> found;
  for (const ifaddrs* entry = head; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr) continue;
    const int family = entry->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    char text[INET6_ADDRSTRLEN] = "";
    const void* raw = family == AF_INET
                          ? static_cast<const void*>(&reinterpret_cast<const sockaddr_in*>(entry->ifa_addr)->sin_addr)
                          : &reinterpret_cast<const sockaddr_in6*>(entry->ifa_addr)->sin6_addr;
    ::inet_ntop(family, raw, text, sizeof text);
    found.push_back({entry->ifa_name, text, family, (entry->ifa_flags & IFF_LOOPBACK) != 0});
  }
  return found;
}

BindResult probe_bind(const std::string& ip, std::uint16_t port, bool udp) {
  if (bound_socket(ip, port, udp)) return BindResult::ok;
  switch (errno) {
    case EADDRINUSE:
      return BindResult::taken;
    case EACCES:
    case EPERM:
      return BindResult::forbidden;
    case EADDRNOTAVAIL:
      return BindResult::no_such_address;
    default:
      throw_errno("bind {}:{}", ip.empty() ? "0.0.0.0" : ip, port);
  }
}

std::uint16_t free_port(const std::string& ip, bool udp) {
  const Fd fd = bound_socket(ip, 0, udp);
  if (!fd) throw_errno("find a free port on {}", ip.empty() ? "0.0.0.0" : ip);
  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound), &length) < 0) throw_errno("read a socket's name");
  return ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                           : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
}

std::uint16_t unprivileged_port_start() {
  const auto text = read_small_file("/proc/sys/net/ipv4/ip_unprivileged_port_start");
  if (!text) return 1024;
  return static_cast<std::uint16_t>(to_int(trim(*text), 0, 65535).value_or(1024));
}

bool is_ipv4(const std::string& text) noexcept {
  in_addr raw{};
  return ::inet_pton(AF_INET, text.c_str(), &raw) == 1;
}

bool is_ipv6(const std::string& text) noexcept {
  in6_addr raw{};
  return ::inet_pton(AF_INET6, text.c_str(), &raw) == 1;
}

}  // namespace kelp::sys
