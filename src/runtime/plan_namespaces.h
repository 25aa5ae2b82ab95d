#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "spec/runtime_config.h"
#include "sys/idmap.h"

namespace kelp::runtime {

/// Who runs the runtime: all that the plan needs to know of the process.
struct Caller {
  uid_t uid = 0;
  gid_t gid = 0;
};

struct NamespaceJoin {
  std::string type;  ///< as in the specification
  std::string path;
  int flag = 0;
};

/// How the container's namespaces come to be.
///
/// Nothing to join and no clock offsets: one clone3 with `clone_flags` is the container's first process.
/// Else `staged`: a helper process joins (`joins`), makes the user namespace first when `user_before_offsets`, writes
/// the clock offsets, and clones the first process as its sibling with what is left of `clone_flags`.
struct NamespacePlan {
  std::uint64_t clone_flags = 0;
  bool new_cgroup_ns = false;  ///< unshared late, when the process is in its cgroup: its root is what we are in then
  std::vector<NamespaceJoin> joins;
  bool staged = false;
  bool user_before_offsets = false;
  /// A pid namespace is joined: the first process is born among others, who could look into it (and reach the host by
  /// its root and descriptors) until its program runs. It starts non-dumpable. Not with a new user namespace, whose
  /// maps we could not write then; that namespace keeps the others out.
  bool hidden = false;
  std::map<std::string, spec::TimeOffset> time_offsets;

  bool own_mounts = true;  ///< false: the container's mounts are made in the caller's own tree, below its root
  bool new_user = false, joined_user = false;
  sys::IdMaps maps;  ///< for new_user

  [[nodiscard]] bool has_new(int flag) const noexcept { return (clone_flags & static_cast<unsigned>(flag)) != 0; }
};

/// Pure. throws Error naming the JSON path (unknown types are refused; so is a new user namespace with nothing to mount
/// in).
NamespacePlan plan_namespaces(const spec::RuntimeConfig& config, const Caller& caller);

}  // namespace kelp::runtime
