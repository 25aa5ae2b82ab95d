#pragma once

#include <string>
#include <vector>

namespace kelp::engine {

struct Context;

/// Absolute path of the OCI runtime: kelp-oci, or what --runtime names. throws Error when it is not there
const std::string& runtime_program(const Context& context);
/// true for kelp-oci, which knows `run --hold-fd`.
bool is_own_runtime(const Context& context);
/// Program and global arguments: root directory, flags of the user, and what a foreign runtime needs to work as
/// uid 0 of a user namespace. cgroup: the container gets a group of its own.
std::vector<std::string> runtime_argv(const Context& context, bool cgroup);
/// Further arguments of a foreign runtime's create.
std::vector<std::string> runtime_create_args(const Context& context);

/// After a monitor that was killed: ends what is left of the container's processes, and takes away the runtime's state,
/// the group and the run directory. Cheap when there is nothing. The caller holds the container's lock.
void clear_remains(Context& context, const std::string& id);

}  // namespace kelp::engine
