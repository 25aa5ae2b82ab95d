#include "runtime/net_devices.h"

#include <cerrno>

#include "base/error.h"

namespace kelp::runtime {

std::vector<HostNetDevice> look_at_net_devices(const spec::StringMap& wanted) {
  std::vector<HostNetDevice> devices;
  for (const auto& [name, name_inside] : wanted) {
    try {
      devices.push_back({name, name_inside, sys::net_device(name)});
    } catch (Error& error) {
      error.add_context("linux.netDevices." + name);
      throw;
    }
  }
  return devices;
}

void move_net_devices(const std::vector<HostNetDevice>& devices, int netns_fd) {
  for (const HostNetDevice& entry : devices) {
    try {
      sys::move_net_device(entry.device, netns_fd, entry.name_inside);
    } catch (SysError& error) {
      error.add_context("linux.netDevices." + entry.name);
      if (error.code() == EPERM)
        error.with_hint("only root of the host may take a device out of the host's network (CAP_NET_ADMIN)");
      throw;
    }
  }
}

void bring_up_net_devices(const std::vector<HostNetDevice>& devices) {
  for (const HostNetDevice& entry : devices) sys::bring_up_net_device(entry.name_inside, entry.device.addresses);
}

}  // namespace kelp::runtime
