#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kelp::sys {

struct HostAddress {
  std::string interface;
  std::string address;  ///< printed, without prefix length
  int family = 0;       ///< AF_INET, AF_INET6
  bool loopback = false;
};
/// Addresses of the interfaces of this network namespace.
std::vector<HostAddress> host_addresses();

enum class BindResult { ok, taken, forbidden, no_such_address };
/// Tries to bind (and, for tcp, listen) like a port forwarder would, then lets go. ip "" = all IPv4 addresses.
/// forbidden: EACCES of a port below net.ipv4.ip_unprivileged_port_start.
BindResult probe_bind(const std::string& ip, std::uint16_t port, bool udp);

/// A port that was free on `ip` a moment ago, from the ephemeral range.
std::uint16_t free_port(const std::string& ip, bool udp);

/// net.ipv4.ip_unprivileged_port_start of this network namespace (1024 when unreadable).
std::uint16_t unprivileged_port_start();

bool is_ipv4(const std::string& text) noexcept;
bool is_ipv6(const std::string& text) noexcept;

}  // namespace kelp::sys
