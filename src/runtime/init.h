#pragma once

#include <string>

#include "base/owned.h"
#include "runtime/bundle.h"
#include "runtime/container.h"
#include "runtime/link.h"
#include "runtime/net_devices.h"
#include "runtime/plan_mounts.h"
#include "runtime/plan_namespaces.h"
#include "runtime/privileges.h"
#include "runtime/rootfs.h"
#include "runtime/seccomp.h"

namespace kelp::runtime {

/// All that the first process needs, computed and opened by the parent; the clone copies it.
struct InitPlan {
  Bundle bundle;
  NamespacePlan namespaces;
  MountPlan mounts;
  PrivilegePlan privileges;
  SeccompProgram seccomp;
  MountSources sources;
  std::vector<HostNetDevice> net_devices;
  Fd console_socket;  ///< valid with process.terminal
  Fd gate;            ///< valid for `create`
  Fd watch;           ///< pidfd of whoever the container must not outlive; not valid: nobody
  Fd proc;            ///< the runtime's own /proc, valid when there are security labels to set
  int preserve_fds = 0;
  bool no_pivot = false, new_keyring = true;
  bool in_user_namespace = false;  ///< some settings are best effort there
  bool die_with_parent = false;
  spec::RuntimeState state;  ///< for hooks; the pid is filled in by the child
};

/// The first process of the container, from clone to exec. Returns only on failure, with the exit code.
int run_init(InitPlan& plan, ChildLink link) noexcept;

}  // namespace kelp::runtime
