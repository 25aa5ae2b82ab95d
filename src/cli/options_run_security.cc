#include "base/error.h"
#include "base/text.h"
#include "cli/options_run.h"

namespace kelp::cli {

void add_security_options(OptionSet& options, RunOptions& values) {
  auto& config = values.config;
  options.group("Security");
  options.flag("privileged", config.privileged, "take away most of what confines the container");
  options.csv("cap-add", config.cap_add, "CAPABILITY", "give a capability; ALL: every one")
      .complete(Complete::capability);
  options.csv("cap-drop", config.cap_drop, "CAPABILITY", "take a capability; ALL: every one")
      .complete(Complete::capability);
  options.list("security-opt", config.security_opt, "OPTION",
               "no-new-privileges, seccomp=FILE|unconfined, label=..., apparmor=..., mask=..., unmask=...");
  options.custom(
      "sysctl", Kind::map, [&config](const std::string& text) { apply_key_value(config.sysctl, text, "--sysctl"); },
      "NAME=VALUE", "kernel parameter of the container's namespaces");
  options.text("userns", config.userns, "MODE",
               "user namespace: \"\", host, keep-id[:uid=N,gid=N], nomap, auto, container:NAME, ns:PATH");
  options.list("uidmap", config.uidmap, "CONTAINER:HOST[:COUNT]", "map of user IDs, in a user namespace of its own");
  options.list("gidmap", config.gidmap, "CONTAINER:HOST[:COUNT]", "map of group IDs");
  options.text("pid", config.pid, "MODE", "PID namespace: private, host, container:NAME, ns:PATH").shows("private");
  options.text("ipc", config.ipc, "MODE", "IPC namespace: private, shareable, none, host, container:NAME, ns:PATH")
      .shows("shareable");
  options.text("uts", config.uts, "MODE", "UTS namespace: private, host, container:NAME, ns:PATH").shows("private");
  options.text("cgroupns", config.cgroupns, "MODE", "cgroup namespace: private, host, container:NAME, ns:PATH")
      .shows("private");
}

}  // namespace kelp::cli
