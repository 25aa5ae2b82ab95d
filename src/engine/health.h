#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "store/container_record.h"

namespace kelp::monitor {
struct Plan;
}

namespace kelp::engine {

struct Context;

/// The check that a container has: its options over the image's HEALTHCHECK over the defaults, everything set.
/// nullopt: none, or switched off.
std::optional<store::HealthCheck> effective_health(const store::ContainerRecord& record);

/// Where the monitor keeps the status and the last probes, in the form of inspect's State.Health.
std::string health_file(const Context& context, const store::ContainerRecord& record, const store::HealthCheck& check);

/// Writes the process documents of the checks into the run directory and names them in the plan; nothing where there is
/// no check. config_json: the bundle's, whose process they are like.
void plan_health_check(const store::ContainerRecord& record, const std::string& bundle, std::string_view config_json,
                       monitor::Plan& plan);

/// `healthcheck run`: one probe now, by the monitor. true: it succeeded.
/// throws Error: not running, no check, a monitor that is too old, a probe that took too long
bool run_health_check(Context& context, const store::ContainerRecord& record);

}  // namespace kelp::engine
