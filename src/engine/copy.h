#pragma once

#include <optional>
#include <string>

#include "engine/context.h"
#include "store/container_record.h"

namespace kelp::engine {

struct CopyRequest {
  std::optional<store::ContainerRecord> from, to;  ///< nullopt: the host's side
  std::string source, target;                      ///< paths; "-" = tar stream on stdin or stdout
  /// What is copied into a container gets its user's ids; false: the ids that it comes with, which are, of what comes
  /// from a container, those of that one's user.
  bool archive = true;
  bool overwrite = false;  ///< a directory may replace a file and the other way round
};
/// `cp`. Inside a container all paths are resolved against its root, links included; host paths as the caller.
/// source: podman-cp(1)
void copy_files(Context& context, const CopyRequest& request);

}  // namespace kelp::engine
