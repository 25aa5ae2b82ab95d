#pragma once

#include <string>
#include <vector>

#include "spec/runtime_config.h"
#include "sys/net_device.h"

/// linux.netDevices: devices of the host become the container's.
namespace kelp::runtime {

/// One entry, looked at while the device still is the host's.
struct HostNetDevice {
  std::string name, name_inside;
  sys::NetDevice device;
};

/// Before anything is made: the addresses are gone once a device has been moved.
/// throws Error "linux.netDevices.eth7: …", as the next does
std::vector<HostNetDevice> look_at_net_devices(const spec::StringMap& wanted);
/// In the runtime, which has the rights over the host's network.
void move_net_devices(const std::vector<HostNetDevice>& devices, int netns_fd);
/// In the first process: what the move has lost.
void bring_up_net_devices(const std::vector<HostNetDevice>& devices);

}  // namespace kelp::runtime
