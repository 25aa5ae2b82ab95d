#pragma once

#include <string>
#include <vector>

#include "engine/images.h"
#include "store/container_record.h"

namespace kelp::engine {

struct Context;

struct CommitOptions {
  std::string name;  ///< "" = an image without a name
  std::vector<std::string> changes;
  std::string config;  ///< JSON text of an image's config object, whose members replace the container's; "" = none
  std::string author, message;
  std::string format = "oci";  ///< oci, docker
  bool pause = false;          ///< freeze the container meanwhile
  bool squash = false;         ///< one layer with everything
  bool volumes = false;        ///< the container's volumes become VOLUMEs of the image (not their contents)
};
/// `commit`: the container's own layer on top of its image's. Nothing of volumes, secrets and mounts goes in.
/// returns the image's id. throws UsageError for a change that cannot be applied
std::string commit_container(Context& context, const store::ContainerRecord& record, const CommitOptions& options,
                             const ProgressFn& progress = {});

}  // namespace kelp::engine
