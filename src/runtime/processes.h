#pragma once

#include <sys/types.h>

#include <vector>

#include "runtime/container.h"

namespace kelp::runtime {

/// All processes of a container: of its cgroup, else all that share its first process' pid namespace (when it has one
/// of its own), else the first process alone. Sorted; empty when it has stopped.
std::vector<pid_t> processes_of(const Container& container, const Record& record);

/// Sends a signal to all of them. SIGKILL goes through the cgroup where there is one, so that nothing escapes by
/// forking.
void signal_all(const Container& container, const Record& record, int signal);

/// SIGKILL to everything, and waits until the first process has ended.
void kill_container(const Container& container, const Record& record);

}  // namespace kelp::runtime
