#pragma once

#include <string>

namespace kelp::sys {

/// What the kernel, its security modules and the filters of an outer container let this process do with namespaces,
/// found by doing it in a short-lived child. Each number is an errno, 0 = granted; what comes after a refusal is not
/// tried and repeats it.
struct NamespaceTrial {
  int userns = 0;           ///< a user namespace
  int map = 0;              ///< its map of one id
  int mount = 0;            ///< a mount namespace in it, and a tmpfs there
  int others = 0;           ///< pid, net, ipc, uts
  const char* other = "";   ///< which of them was refused
  int proc = 0;             ///< a new /proc, in a pid namespace of its own
  std::string label;        ///< AppArmor's label of the child where it is another than ours: who restricts it
  std::string confined_by;  ///< the AppArmor profile in force for this process itself; "" = none

  /// Containers can be run.
  [[nodiscard]] bool usable() const noexcept { return userns == 0 && map == 0 && mount == 0 && others == 0; }
};

/// Costs about a millisecond. Leaves nothing.
NamespaceTrial try_namespaces();

/// true when a seccomp filter is on this process: that of an outer container, as a rule.
bool is_filtered();

}  // namespace kelp::sys
