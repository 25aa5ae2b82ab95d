#pragma once

#include <optional>
#include <string>
#include <vector>

#include "store/container_record.h"

namespace kelp::engine {

struct Context;

/// What `update` changes; what is not set stays.
struct UpdateRequest {
  store::Resources limits;
  std::optional<std::string> restart_policy;
  unsigned restart_max = 0;  ///< with restart_policy
  store::StringMap env;      ///< set, for what is executed or started from now on
  store::Strings unset_env;
  std::vector<store::Ulimit> ulimits;  ///< not empty: instead of those there were, from the next start or exec on
  /// Health check: the command ({"NONE"}: none) and its numbers.
  std::optional<store::Strings> health_test;
  std::optional<std::chrono::nanoseconds> health_interval, health_timeout, health_start_period;
  std::optional<int> health_retries;
};

/// Changes a container in its record and, where it runs, in its cgroup and its monitor. All is checked before anything
/// is changed, but a limit that the kernel itself refuses leaves those before it in force.
/// throws UsageError: values that contradict each other; Error with a hint: a limit that cannot be enforced here
void update_container(Context& context, const store::ContainerRecord& record, const UpdateRequest& request);

/// The limits of `changed` over those of `old`: a number of CPUs and quota with period exclude each other. Pure.
store::Resources merge_limits(const store::Resources& old, const store::Resources& changed);

}  // namespace kelp::engine
