#pragma once

#include <string>

#include "store/container_record.h"

namespace kelp::engine {

struct Context;

/// `export`: the container's own root file system as a tar archive (owners as the container sees them, without what is
/// mounted in it). output: a file, "" = standard output.
/// source: podman-export(1)
void export_container(Context& context, const store::ContainerRecord& record, const std::string& output);

}  // namespace kelp::engine
