#pragma once

#include <functional>
#include <string>

#include "engine/context.h"
#include "engine/images.h"
#include "store/container_record.h"

namespace kelp::engine {

/// `create`: checks everything, finds the image (pulling it when the policy says so), makes its layers, reserves the
/// name, creates missing volumes and publishes the record. Bad input changes nothing on disk.
///
/// image  name or id as typed; "" with config.rootfs
store::ContainerRecord create_container(Context& context, const store::ContainerConfig& config,
                                        const std::string& image, const PullOptions& pull, const ProgressFn& progress);

/// Checks of the options alone, without a look at host or store; throws UsageError.
void check_config(const store::ContainerConfig& config);

/// `rename`
void rename_container(Context& context, const store::ContainerRecord& record, const std::string& new_name);

}  // namespace kelp::engine
