#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "spec/runtime_config.h"

namespace kelp::spec {

/// The state document of the runtime specification, as given to hooks and printed by `kelp-oci state`.
/// source: runtime-spec runtime.md#state
struct RuntimeState {
  std::string oci_version = "1.3.0";
  std::string id;
  std::string status;  ///< creating, created, running, stopped (and paused, as runc has it)
  pid_t pid = 0;       ///< 0 = none
  std::string bundle;  ///< absolute path
  StringMap annotations;
  // runc's additions, printed when not empty
  std::string rootfs, created, owner;
};

/// One line; pretty = indented as runc prints it.
std::string print_state(const RuntimeState& state, bool pretty = false);
RuntimeState parse_state(std::string_view text);

/// Data that goes with a seccomp notify descriptor to listenerPath. source: config-linux.md, "containerProcessState"
std::string print_container_process_state(const RuntimeState& state, pid_t pid, std::string_view metadata);

/// What a runtime can do, as `kelp-oci features` prints it. source: runtime-spec features.md
struct Features {
  std::string oci_version_min = "1.0.0", oci_version_max = "1.3.0";
  Strings hooks, mount_options, namespaces, capabilities;
  bool cgroup_v1 = false, cgroup_v2 = true, systemd = false, systemd_user = true, cgroup_rdma = true;
  bool seccomp = true, apparmor = false, selinux = false, intel_rdt = false, idmapped_mounts = true;
  bool net_devices = false;
  Strings memory_modes, memory_flags;
  Strings seccomp_actions, seccomp_operators, seccomp_archs, seccomp_known_flags, seccomp_supported_flags;
  StringMap annotations;
  Strings potentially_unsafe_annotations;
};
std::string print_features(const Features& features);

}  // namespace kelp::spec
