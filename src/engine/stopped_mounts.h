#pragma once

#include <sys/types.h>

#include "engine/context.h"
#include "store/container_record.h"

namespace kelp::engine {

/// For a look into a container that does not run, in a mount namespace of one's own: mounts its volumes and what is
/// bound from the host below its root, as they are there while it runs. Left out are tmpfs and overlays, which begin
/// empty with each start, what the host has no more, and a new volume over a directory with something in it: the first
/// start fills the volume from there.
///
/// rootfd     the root file system
/// uid, gid   of mount points that are missing
void mount_volumes_of_stopped(Context& context, const store::ContainerRecord& record, int rootfd, uid_t uid, gid_t gid);

}  // namespace kelp::engine
