#pragma once

#include <cstdint>
#include <vector>

#include "spec/runtime_config.h"
#include "sys/capability.h"

namespace kelp::runtime {

/// Who the payload will be: computed in the parent from the configuration, applied in the child.
struct PrivilegePlan {
  std::uint32_t uid = 0, gid = 0;
  std::vector<std::uint32_t> additional_gids;
  bool keep_groups = false;  ///< the caller's supplementary groups stay (run.oci.keep_original_groups, as crun)
  std::uint32_t umask = 0022;
  sys::CapSets caps;
  bool no_new_privs = false;
};

/// Pure but for warnings on capability names that nobody knows. source: config.md#linux-process
PrivilegePlan plan_privileges(const spec::Process& process);

/// A fresh session keyring, so that the container does not hold the caller's. name null = anonymous (never shared).
/// EDQUOT (200 keys per host user) and kernels or filters without keyrings leave it undone with a debug line: the
/// container then starts all the same, as three hundred idle ones must.
void new_session_keyring(const char* name);

/// Becomes the container's user. Order and its reasons stand in the body. Call it after everything that needs a
/// capability; apply_capabilities() comes next, seccomp after that (before it without no_new_privs).
void become_user(const PrivilegePlan& plan);
/// Bounding set first (needs CAP_SETPCAP), then the sets of this process, ambient last, then no_new_privs.
void apply_capabilities(const PrivilegePlan& plan);
/// Both, with seccomp's place between them: without no_new_privs a filter needs CAP_SYS_ADMIN, so it must be loaded
/// before the capabilities go; with it, as late as possible. `load_seccomp` may be empty.
template <typename Fn>
void drop_privileges(const PrivilegePlan& plan, Fn&& load_seccomp) {
  if (!plan.no_new_privs) load_seccomp();
  become_user(plan);
  apply_capabilities(plan);
  if (plan.no_new_privs) load_seccomp();
}

}  // namespace kelp::runtime
