#pragma once

#include "engine/make_spec.h"
#include "store/container_record.h"

namespace kelp::engine {

/// --device and, with --privileged, every device of the host that the caller may open: as nodes to bind. CDI names are
/// left to find_cdi_edits(). throws UsageError: not a device, bad permissions
std::vector<SpecInput::BoundDevice> find_devices(const store::ContainerConfig& config);

}  // namespace kelp::engine
