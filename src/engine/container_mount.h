#pragma once

#include <string>
#include <utility>
#include <vector>

#include "store/container_record.h"

namespace kelp::engine {

struct Context;

/// Root file systems of containers for the programs of the host: mounted at containers/<id>/merged in the mount
/// namespace of the calling process, which must be one of `kelp unshare`; gone with it. A running container's is the
/// very mount that it has, a stopped one's is made here.

/// Returns the path. Mounting twice is once.
/// throws  UsageError outside of `kelp unshare`, with a hint
std::string mount_container(Context& context, const store::ContainerRecord& record);
/// false: it is not mounted here.
/// throws  UsageError where it is, outside of `kelp unshare`
bool unmount_container(Context& context, const store::ContainerRecord& record, bool force);
/// The containers mounted here, and where.
std::vector<std::pair<store::ContainerRecord, std::string>> mounted_containers(Context& context);
/// Takes away what a killed monitor has left of a container that does not run, and what `init` has made of one.
/// throws  UsageError when it runs
void clean_up_container(Context& context, const store::ContainerRecord& record);

}  // namespace kelp::engine
