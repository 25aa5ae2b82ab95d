#pragma once

#include "store/container_record.h"

namespace kelp::engine {

/// The ids of the containers that one with this configuration needs to run: those whose namespaces it
/// joins, and those of --requires, each once. Records of the first kelps have names and ids as they were typed.
store::Strings dependencies(const store::ContainerConfig& config);

}  // namespace kelp::engine
