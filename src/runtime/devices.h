#pragma once

#include <vector>

#include "spec/runtime_config.h"

namespace kelp::runtime {

/// The default devices of the specification, linux.devices, and the links /dev/fd, /dev/stdin … below the new root.
/// Nodes are made with mknod where the kernel lets us, else (any user namespace) bound from the host's /dev.
/// source: runtime-spec config-linux.md#default-devices
///
/// own_dev  false: /dev is bound from the host, so only linux.devices are made
void make_devices(int root, const std::vector<spec::Device>& devices, bool own_dev);

/// Where in the container the nodes are that make_devices() makes.
std::vector<std::string> device_paths(const std::vector<spec::Device>& devices, bool own_dev);

}  // namespace kelp::runtime
