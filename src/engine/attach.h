#pragma once

#include <string>

#include "store/container_record.h"

namespace kelp::engine {

struct Context;

struct AttachOptions {
  bool stdin_open = true;  ///< false: --no-stdin
  bool sig_proxy = true;
  std::string detach_keys = "ctrl-p,ctrl-q";
};

/// Connects to the streams of a running container until it ends; its exit status, 0 after the detach keys.
int attach_container(Context& context, const store::ContainerRecord& record, const AttachOptions& options);

}  // namespace kelp::engine
