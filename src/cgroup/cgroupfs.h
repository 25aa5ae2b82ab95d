#pragma once

#include <string>
#include <vector>

#include "cgroup/limits.h"

/// Directories of cgroup v2: what the other files of this layer are built on.
namespace kelp::cgroup {

/// Words of cgroup.controllers of a group; empty when it cannot be read.
std::vector<std::string> controllers_of(const std::string& group);
/// Words of cgroup.subtree_control.
std::vector<std::string> subtree_controllers_of(const std::string& group);
/// Makes `controllers` available in `group`, by enabling them in the groups above it as far as that is allowed.
/// returns those that are now available
std::vector<std::string> enable_controllers(const std::string& group, const std::vector<std::string>& controllers);
/// true when `group` can give controllers to its children: it holds no processes, or is the root of the hierarchy. The
/// kernel refuses only some in a group with processes; the others (cpu, cpuset, pids) it enables, and from then on no
/// process can enter the children.
bool can_give_controllers(const std::string& group);
/// mkdir; true when it was made, false when it was there. throws SysError.
bool make_group(const std::string& path);
/// Clones a child into the group, which ends at once: mkdir succeeds in places where migration does not.
/// returns 0 or the errno
int try_enter(const std::string& path);
/// Writes limits; an error says which limit, controller, reason and mend.
void write_limits(const std::string& group, const std::vector<LimitWrite>& writes);
/// true when a controller is bound to a v1 hierarchy (/proc/cgroups).
bool used_by_v1(const std::string& controller);
/// Why a group has not got the controller. In a cgroup namespace nobody can tell what the kernel has: delegation.
Lack lack_of(const std::string& controller);

}  // namespace kelp::cgroup
