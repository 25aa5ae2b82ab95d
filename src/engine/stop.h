#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "store/container_record.h"

namespace kelp::engine {

struct Context;

/// Stop signal, then SIGKILL after `timeout` seconds (nullopt: the container's own, 10 by default), then waits until
/// nothing of it is left. false when it was not running, which is no error.
bool stop_container(Context& context, const store::ContainerRecord& record, std::optional<unsigned> timeout);

/// One signal to the first process. throws Error when the container is not running.
void kill_container(Context& context, const store::ContainerRecord& record, int signal);

/// Freezer of the container's cgroup. throws Error with a hint where there is no cgroup.
void pause_container(Context& context, const store::ContainerRecord& record);
void unpause_container(Context& context, const store::ContainerRecord& record);

/// Waits until the container is in one of the states ("stopped" and "exited" mean the same); empty = until it ends.
/// The exit code where it ended, -1 where it is in another awaited state. `interval` is the time between two looks
/// where no event can be waited for.
int wait_container(Context& context, const store::ContainerRecord& record, const std::vector<std::string>& conditions,
                   std::chrono::milliseconds interval);

/// The first of several for which a condition holds (--exit-first-match).
int wait_for_any(Context& context, const std::vector<store::ContainerRecord>& records,
                 const std::vector<std::string>& conditions, std::chrono::milliseconds interval);

/// stop (when running), then start, detached.
void restart_container(Context& context, const store::ContainerRecord& record, std::optional<unsigned> timeout);

}  // namespace kelp::engine
