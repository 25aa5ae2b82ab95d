// What the kernel gives: system calls, namespaces, ids, filters.
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"
#include "base/program_path.h"
#include "base/text.h"
#include "engine/context.h"
#include "engine/doctor_checks.h"
#include "engine/host.h"
#include "engine/session.h"
#include "sys/capability.h"
#include "sys/subid.h"

#include <linux/capability.h>

namespace kelp::engine {
namespace {

/// Every one of these fails here for its arguments; ENOSYS says that the kernel, or a filter, does not have it.
std::vector<std::string> missing_calls() {
  struct Call {
    const char* name;
    long number;
  };
  static constexpr Call kCalls[] = {{"openat2", SYS_openat2},
                                    {"pidfd_open", SYS_pidfd_open},
                                    {"close_range", SYS_close_range},
                                    {"fsopen", SYS_fsopen},
                                    {"open_tree", SYS_open_tree},
                                    {"move_mount", SYS_move_mount},
                                    {"mount_setattr", SYS_mount_setattr}};
  std::vector<std::string> missing;
  for (const Call& call : kCalls)
    if (::syscall(call.number, -1, nullptr, -1, 0, 0) < 0 && errno == ENOSYS) missing.emplace_back(call.name);
  return missing;
}

PackageNames uidmap_package() { return {"uidmap", "shadow-utils", "shadow", "shadow-uidmap"}; }

}  // namespace

Finding check_kernel(Context& context) {
  const KernelFacts& kernel = context.host().kernel.get();
  Finding finding;
  finding.text = fmt::format("Linux {} {}", kernel.release, kernel.machine);
  const auto missing = missing_calls();
  if (missing.empty()) return finding;
  finding.verdict = Verdict::missing;
  finding.text += fmt::format(", without {}", join(missing, ", "));
  finding.fix = is_nested() || sys::is_filtered()
                    ? "start the outer container with --security-opt seccomp=unconfined, or update its engine"
                    : "boot a kernel of 5.12 or later";
  return finding;
}

Finding check_namespaces(Context& context) {
  const UserNamespaceState state = user_namespace_state(context.host());
  if (state.level == UserNamespaceLevel::none) return {"", Verdict::missing, state.why, state.hint};
  return {"", Verdict::good, "user, mount, pid, network, ipc and uts namespaces can be made", ""};
}

Finding check_own_proc(Context& context) {
  const sys::NamespaceTrial& trial = context.host().trial.get();
  if (!trial.usable())
    return {"", Verdict::less, "cannot be tried without user namespaces", "see user namespaces above"};
  if (trial.proc == 0) return {"", Verdict::good, "a container can have a /proc of its own", ""};
  return {"", Verdict::less,
          fmt::format("refused ({}), since the /proc here is partly covered: containers see the processes outside",
                      errno_text(trial.proc)),
          "start the outer container with --security-opt unmask=ALL (Docker: --security-opt systempaths=unconfined)"};
}

Finding check_seccomp(Context&) {
  // With a null filter the kernel says EFAULT where it knows filters, EINVAL where it does not.
  ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, nullptr, 0, 0);
  if (errno == EINVAL)
    return {"", Verdict::missing, "this kernel has no seccomp filters", "boot a kernel with CONFIG_SECCOMP_FILTER=y"};
  return {"", Verdict::good,
          sys::is_filtered() ? "filters can be loaded; kelp itself is under one" : "filters can be loaded", ""};
}

Finding check_helpers(Context&) {
  const std::uint64_t caps = sys::current_caps().effective;
  if ((caps >> CAP_SETUID & 1) != 0 && (caps >> CAP_SETGID & 1) != 0)
    return {"", Verdict::good, "not needed: kelp has the right to map ids itself", ""};
  std::vector<std::string> unprivileged;
  for (const auto& [name, path] : {std::pair<const char*, const std::string&>{"newuidmap", sys::newuidmap_path()},
                                   {"newgidmap", sys::newgidmap_path()}}) {
    if (path.empty())
      return {"", Verdict::less, fmt::format("{} is not installed: every container has one id", name),
              install_command(uidmap_package())};
    if (!sys::helper_is_privileged(path)) unprivileged.push_back(path);
  }
  if (!unprivileged.empty())
    return {"", Verdict::less,
            fmt::format("{} has no privilege: every container has one id", join(unprivileged, " and ")),
            "sudo chmod u+s " + join(unprivileged, " ")};
  return {"", Verdict::good, fmt::format("{}, {}", sys::newuidmap_path(), sys::newgidmap_path()), ""};
}

Finding check_ranges(Context& context) {
  const UserNamespaceFacts& facts = context.host().userns.get();
  if (facts.level == UserNamespaceLevel::single_id)
    return {"", Verdict::less, facts.why + ": every container has one id", facts.hint};
  const std::uint64_t uids = sys::id_count(facts.maps.uids) - 1;
  const std::uint64_t gids = sys::id_count(facts.maps.gids) - 1;
  const std::string text = fmt::format("{} user ids and {} group ids besides the own", uids, gids);
  if (user_namespace_state(context.host()).level != UserNamespaceLevel::none)
    ask_in_userns(context, [] { return std::string(); });  // that the helpers take them shows here alone
  if (uids >= 65535 && gids >= 65535) return {"", Verdict::good, text, ""};
  return {
      "", Verdict::less, text + ": images with higher ids than that cannot be unpacked",
      fmt::format("sudo usermod --add-subuids 524288-589823 --add-subgids 524288-589823 {}", context.host().user_name)};
}

Finding check_programs(Context&) {
  std::string places;
  for (const char* name : {"kelp-oci", "kelp-monitor", "kelp-image", "kelp-init"}) {
    const std::string path = own_program(name);
    if (::access(path.c_str(), X_OK) < 0) throw_errno("execute {}", path);
    if (places.empty()) places = path.substr(0, path.rfind('/'));
  }
  return {"", Verdict::good, "kelp's own are in " + places, ""};
}

}  // namespace kelp::engine
