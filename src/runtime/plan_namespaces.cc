#include "runtime/plan_namespaces.h"

#include <sched.h>

#include "base/error.h"
#include "base/text.h"
#include "sys/namespaces.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

namespace kelp::runtime {
namespace {

/// The caller alone, mapped once: what any user may write without a helper.
bool is_single(const sys::IdRanges& ranges, std::uint32_t own) {
  return ranges.size() == 1 && ranges[0].outside == own && ranges[0].count == 1;
}

}  // namespace

NamespacePlan plan_namespaces(const spec::RuntimeConfig& config, const Caller& caller) {
  NamespacePlan plan;
  for (size_t i = 0; i < config.linux_.namespaces.size(); ++i) {
    const spec::Namespace& entry = config.linux_.namespaces[i];
    const auto kind = sys::namespace_kind(entry.type);
    if (!kind) throw_error("linux.namespaces[{}].type: {} is no namespace", i, quoted(entry.type));
    if (!entry.path.empty()) {
      plan.joins.push_back({entry.type, entry.path, kind->flag});
      if (kind->flag == CLONE_NEWUSER) plan.joined_user = true;
      if (kind->flag == CLONE_NEWPID) plan.hidden = true;
    } else if (kind->flag == CLONE_NEWCGROUP) {
      plan.new_cgroup_ns = true;
    } else {
      plan.clone_flags |= static_cast<unsigned>(kind->flag);
    }
  }
  plan.new_user = plan.has_new(CLONE_NEWUSER);
  plan.hidden = plan.hidden && !plan.new_user;
  const bool joins_mount = [&] {
    for (const NamespaceJoin& join : plan.joins)
      if (join.flag == CLONE_NEWNS) return true;
    return false;
  }();
  plan.own_mounts = plan.has_new(CLONE_NEWNS) || joins_mount;
  if (!plan.own_mounts && plan.new_user)
    throw_error("linux.namespaces: a new user namespace needs a mount namespace of its own");

  if (plan.new_user) {
    plan.maps.uids = config.linux_.uid_mappings;
    plan.maps.gids = config.linux_.gid_mappings;
    if (plan.maps.uids.empty() || plan.maps.gids.empty())
      throw_error("linux.uidMappings, linux.gidMappings: a new user namespace needs both");
    // uid 0 of a user namespace holds CAP_SETUID over the ids it has: no helper needed for a child of it.
    plan.maps.helpers =
        caller.uid != 0 && !(is_single(plan.maps.uids, caller.uid) && is_single(plan.maps.gids, caller.gid));
  }
  if (plan.has_new(CLONE_NEWTIME)) plan.time_offsets = config.linux_.time_offsets;
  // Offsets can be written only until the first process enters, and a clone3 with CLONE_NEWTIME enters at once.
  plan.staged = !plan.joins.empty() || !plan.time_offsets.empty();
  plan.user_before_offsets = plan.new_user && !plan.time_offsets.empty();
  return plan;
}

}  // namespace kelp::runtime
