#include "base/text.h"
#include "runtime/commands/commands.h"
#include "runtime/commands/print.h"
#include "runtime/plan_mounts.h"
#include "runtime/seccomp.h"
#include "spec/runtime_state.h"
#include "spec/validate.h"
#include "sys/capability.h"
#include "sys/namespaces.h"

namespace kelp::runtime {
namespace {

int features(const Call&) {
  spec::Features out;
  out.hooks = {"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"};
  out.mount_options = known_mount_options();
  for (const sys::NamespaceKind& kind : sys::namespace_kinds()) out.namespaces.emplace_back(kind.spec_name);
  out.capabilities = sys::capability_names();
  for (int i = 0; i <= static_cast<int>(spec::SeccompAction::notify); ++i)
    out.seccomp_actions.emplace_back(spec::seccomp_action_name(static_cast<spec::SeccompAction>(i)));
  for (int i = 0; i <= static_cast<int>(spec::SeccompOp::masked_eq); ++i)
    out.seccomp_operators.emplace_back(spec::seccomp_op_name(static_cast<spec::SeccompOp>(i)));
  out.seccomp_archs = seccomp_known_archs();
  out.seccomp_known_flags = seccomp_known_flags();
  out.seccomp_supported_flags = seccomp_supported_flags();
  out.memory_modes = spec::memory_policy_modes();
  out.memory_flags = spec::memory_policy_flags();
  out.apparmor = out.selinux = out.net_devices = true;
  out.systemd = true;
  out.annotations["io.github.seccomp.libseccomp.version"] = seccomp_library_version();
  print(spec::print_features(out) + "\n");
  return 0;
}

}  // namespace

const Command kFeatures = {"features", "", "print what this runtime can do as JSON", {}, features, 0, 0};

}  // namespace kelp::runtime
