#pragma once

#include <functional>
#include <string>

#include "engine/context.h"
#include "engine/images.h"
#include "store/container_record.h"
#include "sys/lock.h"

namespace kelp::engine {

/// lock  its own: while it is held, nobody else starts or removes the container
struct NewContainer {
  store::ContainerRecord record;
  sys::FileLock lock;
};

/// `create`: checks everything, finds the image (pulling it when the policy says so), makes its layers, reserves the
/// name, creates missing volumes and publishes the record. Bad input changes nothing on disk.
///
/// image  name or id as typed; "" with config.rootfs
NewContainer create_container(Context& context, const store::ContainerConfig& config, const std::string& image,
                              const PullOptions& pull, const ProgressFn& progress);

/// Checks of the options alone, without a look at host or store; throws UsageError.
void check_config(const store::ContainerConfig& config);

/// `rename`
void rename_container(Context& context, const store::ContainerRecord& record, const std::string& new_name);

}  // namespace kelp::engine
