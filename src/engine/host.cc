#include "engine/host.h"

#include <fcntl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdlib>

#include "base/error.h"
#include "base/owned.h"
#include "base/program_path.h"
#include "base/text.h"
#include "engine/context.h"
#include "sys/lock.h"
#include "sys/procfs.h"
#include "sys/spawn.h"
#include "sys/subid.h"

namespace kelp::engine {

namespace {

KernelFacts find_kernel(const GlobalOptions&) {
  utsname name{};
  ::uname(&name);
  KernelFacts facts;
  facts.release = name.release;
  facts.machine = name.machine;
  const auto parts = split(facts.release, '.');
  if (parts.size() > 1) {
    facts.major = static_cast<int>(to_int(parts[0]).value_or(0));
    facts.minor = static_cast<int>(to_int(parts[1].substr(0, parts[1].find_first_not_of("0123456789"))).value_or(0));
  }
  return facts;
}

CgroupFacts find_cgroup(const GlobalOptions& options) {
  CgroupFacts facts;
  const std::string& mount = cgroup::v2_mount();
  if (mount == "/sys/fs/cgroup")
    facts.version = "v2";
  else if (!mount.empty())
    facts.version = "hybrid";
  else
    facts.version = ::access("/sys/fs/cgroup/memory", F_OK) == 0 ? "v1" : "none";
  facts.place = cgroup::probe(options.cgroup_manager);
  return facts;
}

NetworkToolFacts find_slirp(const GlobalOptions& options) {
  NetworkToolFacts facts;
  facts.path = options.slirp4netns.empty() ? find_in_path("slirp4netns") : options.slirp4netns;
  return facts;
}

std::string find_slirp_version(const GlobalOptions& options) {
  const NetworkToolFacts tool = find_slirp(options);
  if (tool.path.empty()) return "";
  sys::SpawnRequest request;
  request.path = tool.path;
  request.argv = {tool.path, "--version"};
  const sys::Captured result = sys::run_captured(request);
  const auto words = split(result.out.substr(0, result.out.find('\n')), ' ');
  return words.size() > 2 ? words[2] : "";
}

SecurityModules find_security(const GlobalOptions&) {
  SecurityModules modules;
  modules.selinux = ::access("/sys/fs/selinux/enforce", F_OK) == 0;
  modules.apparmor = trim(sys::read_small_file("/sys/module/apparmor/parameters/enabled").value_or("N")) == "Y";
  modules.apparmor_restricts_userns =
      trim(sys::try_read_file("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").value_or("0")) == "1";
  return modules;
}

UserNamespaceFacts find_userns(const GlobalOptions&) {
  UserNamespaceFacts facts;
  sys::SingleIdReason reason;
  facts.maps = sys::default_maps(&reason);
  if (!reason.text.empty()) {
    facts.level = UserNamespaceLevel::single_id;
    facts.why = reason.text;
    facts.hint = reason.hint;
  }
  const auto limit = sys::try_read_file("/proc/sys/user/max_user_namespaces");
  const auto clone = sys::try_read_file("/proc/sys/kernel/unprivileged_userns_clone");
  if (limit && trim(*limit) == "0") {
    facts.level = UserNamespaceLevel::none;
    facts.why = "user.max_user_namespaces is 0";
    facts.hint = "sudo sysctl user.max_user_namespaces=15000";
  } else if (clone && trim(*clone) == "0" && ::geteuid() != 0) {
    facts.level = UserNamespaceLevel::none;
    facts.why = "kernel.unprivileged_userns_clone is 0";
    facts.hint = "sudo sysctl kernel.unprivileged_userns_clone=1";
  }
  return facts;
}

sys::NamespaceTrial find_trial(const GlobalOptions&) { return sys::try_namespaces(); }

bool can_open(const char* path) { return Fd(::open(path, O_RDWR | O_CLOEXEC)).valid(); }
bool find_tun(const GlobalOptions&) { return can_open("/dev/net/tun"); }
bool find_fuse(const GlobalOptions&) { return can_open("/dev/fuse"); }

std::string find_host_name(const GlobalOptions&) {
  char name[256] = "";
  ::gethostname(name, sizeof name - 1);
  return name;
}

int find_cpus(const GlobalOptions&) { return static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN)); }

/// In a chroot the kernel refuses user namespaces: nothing is mounted at what we see as the root.
bool in_chroot() {
  for (const sys::MountInfo& mount : sys::read_mountinfo())
    if (mount.mount_point == "/") return false;
  return true;
}

constexpr const char* kOuterFlags =
    "start the outer container with --security-opt seccomp=unconfined (Docker also wants "
    "--security-opt apparmor=unconfined --security-opt systempaths=unconfined)";

/// Who refused, by what can be seen from here, and what lifts it.
void explain_refusal(const HostFacts& host, int code, const char* what, UserNamespaceState& state) {
  const sys::NamespaceTrial& trial = host.trial.get();
  const UserNamespaceFacts& files = host.userns.get();
  if (files.level == UserNamespaceLevel::none) {  // a sysctl says so
    state.why = files.why;
    state.hint = files.hint;
  } else if (code == ENOSPC || code == EUSERS) {
    state.why = fmt::format("{}: too many namespaces", what);
    state.hint = "sudo sysctl user.max_user_namespaces=31000";
  } else if (!trial.label.empty() || (host.security.get().apparmor_restricts_userns && !sys::is_filtered())) {
    state.why = trial.label.empty() ? fmt::format("AppArmor refuses {}", what)
                                    : fmt::format("AppArmor refuses {} (label {})", what, printable(trial.label));
    state.hint =
        "contrib/quickstart installs a profile for kelp; or for all programs: "
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0";
  } else if (sys::is_filtered()) {
    state.why = fmt::format("a seccomp filter refuses {}: {}", what, errno_text(code));
    state.hint = kOuterFlags;
  } else if (!trial.confined_by.empty() && !is_nested()) {
    state.why = fmt::format("{}: {}; the AppArmor profile {} confines kelp", what, errno_text(code),
                            printable(trial.confined_by));
    state.hint = fmt::format(
        "let the profile allow capabilities, mounts and userns, or unload it: "
        "printf %s {} | sudo tee /sys/kernel/security/apparmor/.remove",
        quoted(trial.confined_by));
  } else if (in_chroot()) {
    state.why = fmt::format("{}: in a chroot the kernel refuses it", what);
    state.hint = "enter the directory with systemd-nspawn or bwrap in place of chroot";
  } else {
    state.why = fmt::format("{}: {}", what, errno_text(code));
    state.hint = is_nested() ? kOuterFlags : "sudo sysctl user.max_user_namespaces=15000; see also the kernel's log";
  }
}

std::string home_of_caller() {
  const char* home = std::getenv("HOME");
  return home == nullptr ? "/" : home;
}

}  // namespace

HostFacts::HostFacts(const GlobalOptions& given) : HostFacts(std::make_shared<const GlobalOptions>(given)) {}

HostFacts::HostFacts(const std::shared_ptr<const GlobalOptions>& options)
    : uid(::geteuid()),
      gid(::getegid()),
      user_name(sys::own_user_name()),
      home(home_of_caller()),
      kernel(options, find_kernel),
      cgroup(options, find_cgroup),
      slirp4netns(options, find_slirp),
      slirp4netns_version(options, find_slirp_version),
      security(options, find_security),
      userns(options, find_userns),
      trial(options, find_trial),
      tun(options, find_tun),
      fuse(options, find_fuse),
      host_name(options, find_host_name),
      cpus(options, find_cpus) {
  if (user_name.empty()) user_name = std::to_string(uid);
}

UserNamespaceState user_namespace_state(const HostFacts& host) {
  UserNamespaceState state;
  const sys::NamespaceTrial& trial = host.trial.get();
  const std::string others = fmt::format("a {} namespace", trial.other);
  const std::pair<int, const char*> steps[] = {{trial.userns, "a user namespace"},
                                               {trial.map, "the id map of a user namespace"},
                                               {trial.mount, "mounts in a user namespace"},
                                               {trial.others, others.c_str()}};
  for (const auto& [code, what] : steps) {
    if (code == 0) continue;
    state.level = UserNamespaceLevel::none;
    explain_refusal(host, code, what, state);
    return state;
  }
  const UserNamespaceFacts& files = host.userns.get();
  if (files.level == UserNamespaceLevel::single_id) {
    state.level = files.level;
    state.why = files.why;
    state.hint = files.hint;
  }
  return state;
}

const char* level_name(UserNamespaceLevel level) noexcept {
  return level == UserNamespaceLevel::full ? "full" : level == UserNamespaceLevel::single_id ? "single-id" : "none";
}

bool is_nested() {
  const char* variable = std::getenv("container");
  return (variable != nullptr && *variable != '\0') || ::access("/run/.containerenv", F_OK) == 0 ||
         ::access("/.dockerenv", F_OK) == 0;
}

}  // namespace kelp::engine
