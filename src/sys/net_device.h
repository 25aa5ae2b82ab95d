#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kelp::sys {

/// An address of an interface as the kernel takes it back.
struct NetAddress {
  std::uint8_t family = 0;  ///< AF_INET, AF_INET6
  std::uint8_t prefix = 0;
  std::string local, peer;  ///< 4 or 16 bytes; peer only differs on point-to-point links
  std::string broadcast;    ///< "" none
};

struct NetDevice {
  int index = 0;
  std::vector<NetAddress> addresses;  ///< permanent ones of global scope: what a move to another namespace loses
};

/// The interface `name` of this network namespace. throws SysError(ENODEV)
NetDevice net_device(const std::string& name);

/// Moves it to another network namespace, renamed to `new_name` in the same step.
///
/// throws  SysError; EPERM without CAP_NET_ADMIN over both namespaces, EEXIST when the name is taken there, EINVAL
///         for what the kernel ties to its namespace (lo, tunnels)
void move_net_device(const NetDevice& device, int netns_fd, const std::string& new_name);

/// In its new namespace: gives it its addresses again and sets it up. The index may be another one there, so by name.
void bring_up_net_device(const std::string& name, const std::vector<NetAddress>& addresses);

}  // namespace kelp::sys
