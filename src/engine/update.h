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
  std::optional<store::Strings> health_startup_test;
  std::optional<std::chrono::nanoseconds> health_startup_interval, health_startup_timeout;
  std::optional<int> health_startup_success, health_startup_retries;
  std::optional<std::string> health_on_failure, health_log_destination;
  std::optional<unsigned> health_log_count, health_log_size;
  /// true when one of those above is set.
  [[nodiscard]] bool changes_health() const noexcept {
    return health_test || health_interval || health_timeout || health_start_period || health_retries ||
           health_startup_test || health_startup_interval || health_startup_timeout || health_startup_success ||
           health_startup_retries || health_on_failure || health_log_destination || health_log_count || health_log_size;
  }
};

/// Changes a container in its record and, where it runs, in its cgroup and its monitor. All is checked before anything
/// is changed, but a limit that the kernel itself refuses leaves those before it in force.
/// throws UsageError: values that contradict each other; Error with a hint: a limit that cannot be enforced here
void update_container(Context& context, const store::ContainerRecord& record, const UpdateRequest& request);

/// The limits of `changed` over those of `old`: a number of CPUs and quota with period exclude each other. Pure.
store::Resources merge_limits(const store::Resources& old, const store::Resources& changed);

}  // namespace kelp::engine
