#pragma once

#include <optional>
#include <string>

#include "cli/option_set.h"
#include "cli/run_values.h"
#include "engine/images.h"
#include "store/container_record.h"

namespace kelp::cli {

/// What `run` and `create` were asked for, on its way into store::ContainerConfig. The texts kept here are those that
/// need others to be judged; finish_run_options() does that.
struct RunOptions {
  store::ContainerConfig config;
  engine::PullOptions pull;
  bool replace = false, quiet = false;

  std::optional<std::string> entrypoint;
  Strings env, env_files;
  bool env_host = false;
  Strings labels, label_files;
  std::string os, arch, variant;
  std::optional<std::string> health_cmd;
  std::optional<std::chrono::nanoseconds> health_interval, health_timeout, health_start_period;
  std::optional<int> health_retries;
  store::HealthCheck health;  ///< the members that none of the above names
  std::optional<std::string> health_startup_cmd;
  bool no_healthcheck = false;
  bool rootfs = false;
  bool hardened = false;
  std::optional<std::string> subuid_name, subgid_name;
};

/// Declares the options that `run` and `create` share.
void add_run_options(OptionSet& options, RunOptions& values);
/// The parts of it, one file each.
void add_process_options(OptionSet& options, RunOptions& values);
void add_network_options(OptionSet& options, RunOptions& values);
void add_mount_options(OptionSet& options, RunOptions& values);
void add_resource_options(OptionSet& options, RunOptions& values);
/// The limits among them, which `update` has too.
void add_limit_options(OptionSet& options, store::Resources& resources);
void add_security_options(OptionSet& options, RunOptions& values);
void add_health_options(OptionSet& options, RunOptions& values);
/// Options about where the image comes from; pull has them too.
void add_registry_options(OptionSet& options, engine::PullOptions& pull);
void add_platform_options(OptionSet& options, std::string& platform, std::string& os, std::string& arch,
                          std::string& variant);

/// --hardened: what the user has not set himself becomes the tightest there is. throws UsageError for what cannot be
/// had together with it
void apply_hardened(RunOptions& values, const OptionSet& options);

/// What of --hardened stands in the way of a program that ended with these last words, and the option that gives it:
/// one line, "" when nothing is known.
std::string hardened_part(const store::ContainerConfig& config, std::string_view words);

/// Reads the files named, resolves the environment, checks what contradicts each other. arguments: IMAGE [COMMAND…];
/// returns the image ("" with --rootfs).
/// throws UsageError
std::string finish_run_options(RunOptions& values, const Strings& arguments, const Strings& command_line);

}  // namespace kelp::cli
