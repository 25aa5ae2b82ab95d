#pragma once

#include <string>
#include <vector>

#include "engine/context.h"
#include "store/container_record.h"
#include "store/volumes.h"

namespace kelp::engine {

struct RemoveOptions {
  bool force = false;     ///< stop a running one first (SIGTERM, then SIGKILL after timeout)
  bool volumes = false;   ///< anonymous volumes too
  bool depend = false;    ///< containers that depend on it first
  unsigned timeout = 10;  ///< seconds
  bool time_given = false;
  bool at_rest_only = false;  ///< one that runs, or that somebody is starting, is left alone (prune)
};
/// false: somebody else has removed it, or it was left alone.
/// throws UsageError when it runs and force is off, or when others depend on it
bool remove_container(Context& context, const store::ContainerRecord& record, const RemoveOptions& options);

/// throws UsageError when used by a container, unless force (the users are removed first)
void remove_volume(Context& context, const store::VolumeRecord& volume, bool force, unsigned timeout = 10);

/// Finishes what earlier removals left: cheap when there is nothing. Called by commands that write.
void sweep_trash(Context& context);

}  // namespace kelp::engine
