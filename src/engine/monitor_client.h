#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/owned.h"
#include "engine/prepare.h"
#include "monitor/plan.h"
#include "monitor/protocol.h"
#include "store/container_record.h"

namespace kelp::engine {

struct Context;

/// What of a start's cgroups the monitor is told.
struct GroupPlan {
  std::string path;   ///< X, "" = none
  std::string leaf;   ///< X/container below the mount of the hierarchy
  bool pids = false;  ///< the group can limit the number of processes
};

/// The plan of one start. preserve_fds: how many of our descriptors, from 3 on, the container gets.
monitor::Plan make_monitor_plan(Context& context, const store::ContainerRecord& record, const StartPlan& start,
                                const GroupPlan& group, unsigned preserve_fds);
/// The plan in a memory file, positioned at its beginning.
Fd plan_file(const monitor::Plan& plan);

/// A connection to the monitor of a container, greeted. Newer verbs than `version` must not be sent.
struct MonitorLink {
  Fd socket;
  std::uint32_t version = 0;
};
/// nullopt: no monitor listens (any more). throws Error when what listens does not answer as a monitor does
std::optional<MonitorLink> connect_monitor(const Context& context, const std::string& id);

}  // namespace kelp::engine
