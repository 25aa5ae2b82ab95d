#pragma once

#include <string>

#include "spec/runtime_config.h"

namespace kelp::runtime {

/// A bundle that was read and checked.
struct Bundle {
  std::string dir;          ///< absolute, symlinks resolved
  std::string rootfs;       ///< absolute
  std::string config_text;  ///< config.json as read: kept in the state directory for exec, delete and hooks
  spec::RuntimeConfig config;
};

/// Reads dir/config_name (an absolute config_name is taken as it is), checks it and completes it: an ordinary user's
/// configuration without a user namespace gets one with the caller's own maps when `rootless`.
/// throws  Error with the file's name and the JSON path
Bundle load_bundle(const std::string& dir, const std::string& config_name = "config.json", bool rootless = true);

/// Adds the user namespace that an unprivileged caller needs, with his subordinate ids where he has them.
void add_user_namespace(spec::RuntimeConfig& config);

}  // namespace kelp::runtime
