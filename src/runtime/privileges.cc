#include "runtime/privileges.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/keyctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"

namespace kelp::runtime {
namespace {

std::uint64_t cap_bits(const spec::Strings& names) {
  std::uint64_t bits = 0;
  for (const std::string& name : names) {
    const auto bit = sys::capability_from_name(name);
    if (!bit)
      log::warn("capability {} is not known and ignored", quoted(name));
    else
      bits |= 1ULL << *bit;
  }
  const std::uint64_t known = sys::known_caps();
  if ((bits & ~known) != 0) log::debug("capabilities {:#x} do not exist in this kernel", bits & ~known);
  return bits & known;
}

/// The kernel's setgroups, not glibc's (which also serves threads): this process has one.
void set_groups(const PrivilegePlan& plan) {
  const std::vector<gid_t> wanted(plan.additional_gids.begin(), plan.additional_gids.end());
  if (::syscall(SYS_setgroups, wanted.size(), wanted.data()) == 0) return;
  if (errno == EPERM) {
    // A single-id namespace has setgroups denied for good. The caller's own groups then stay, seen as the overflow id;
    // asking for none or for the one id there is cannot mean more.
    const bool only_own = std::all_of(wanted.begin(), wanted.end(), [&](gid_t gid) { return gid == plan.gid; });
    if (only_own) return;
    Error error("set additional groups: setgroups is denied in this user namespace");
    error.with_hint("additional groups need subordinate ids: see /etc/subgid");
    throw error;
  }
  if (errno == EINVAL) throw_error("set additional groups: one of them is not mapped in the user namespace");
  throw_errno("set additional groups");
}

/// What can be granted: a runtime that runs with less than all capabilities itself gives what it has.
sys::CapSets only_held(sys::CapSets caps) {
  const std::uint64_t held = sys::current_caps().permitted;
  const std::uint64_t missing = (caps.permitted | caps.inheritable) & ~held;
  if (missing == 0) return caps;
  log::warn("capabilities {:#x} are asked for, but not held by the runtime itself: the container goes without",
            missing);
  caps.effective &= held;
  caps.permitted &= held;
  caps.inheritable &= held;
  caps.ambient &= held;
  return caps;
}

}  // namespace

PrivilegePlan plan_privileges(const spec::Process& process) {
  PrivilegePlan plan;
  plan.uid = process.user.uid;
  plan.gid = process.user.gid;
  plan.additional_gids = process.user.additional_gids;
  plan.umask = process.user.umask.value_or(0022);
  plan.no_new_privs = process.no_new_privileges;
  if (process.capabilities) {
    plan.caps.bounding = cap_bits(process.capabilities->bounding);
    plan.caps.effective = cap_bits(process.capabilities->effective);
    plan.caps.permitted = cap_bits(process.capabilities->permitted);
    plan.caps.inheritable = cap_bits(process.capabilities->inheritable);
    plan.caps.ambient = cap_bits(process.capabilities->ambient);
    // The kernel refuses the whole set otherwise; the specification lets a runtime drop what cannot be granted.
    plan.caps.effective &= plan.caps.permitted;
    plan.caps.ambient &= plan.caps.permitted & plan.caps.inheritable;
  }
  return plan;
}

void new_session_keyring(const char* name) {
  if (::syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) < 0)
    log::debug("no session keyring of its own: {}", errno_text(errno));
}

void become_user(const PrivilegePlan& plan) {
  // Permitted capabilities must survive the change of uid: the bounding set and a filter come after it.
  if (::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0) throw_errno("keep capabilities over the change of user");
  // Groups first: after setresuid the right to set them is gone.
  if (!plan.keep_groups) set_groups(plan);
  if (::syscall(SYS_setresgid, plan.gid, plan.gid, plan.gid) < 0) {
    if (errno == EINVAL) throw_error("become group {}: it is not mapped in the user namespace", plan.gid);
    throw_errno("become group {}", plan.gid);
  }
  if (::syscall(SYS_setresuid, plan.uid, plan.uid, plan.uid) < 0) {
    if (errno == EINVAL) throw_error("become user {}: it is not mapped in the user namespace", plan.uid);
    throw_errno("become user {}", plan.uid);
  }
  ::umask(plan.umask);
  // A uid other than 0 has lost its effective set; what follows (bounding set, filter) still needs it.
  const sys::CapSets now = sys::current_caps();
  sys::set_caps(now.permitted, now.permitted, now.inheritable);
}

void apply_capabilities(const PrivilegePlan& plan) {
  sys::drop_bounding(plan.caps.bounding);
  const sys::CapSets wanted = only_held(plan.caps);
  // Not needed beyond this line, and a payload must not inherit it.
  if (::prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) < 0) throw_errno("reset PR_SET_KEEPCAPS");
  sys::set_caps(wanted.effective, wanted.permitted, wanted.inheritable);
  // The kernel cuts the ambient set when permitted or inheritable shrink, so it comes last.
  sys::set_ambient(wanted.ambient);
  if (plan.no_new_privs && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) throw_errno("set no_new_privs");
}

}  // namespace kelp::runtime
