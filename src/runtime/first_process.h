#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "runtime/link.h"
#include "runtime/plan_namespaces.h"
#include "sys/clone.h"

namespace kelp::runtime {

struct FirstProcessOptions {
  int cgroup_fd = -1;    ///< borrowed
  bool sibling = false;  ///< child of our parent, not ours: so that its parent-death signal means the monitor
  std::optional<int> oom_score_adj;  ///< of a hidden process, who cannot write it itself
  /// Has a process moved into the group where the kernel refuses a clone into it (EACCES); needed with cgroup_fd.
  std::function<void(pid_t)> enter_group;
};

/// Clones the process that becomes the container, in all its new namespaces: one clone3, or (see NamespacePlan) through
/// a helper process that joins the given ones. `body` runs in the new process and gets its end of the link; ours is
/// closed there. Mapping of ids is served here only for the helper process; the first process itself asks for it.
sys::Child start_first_process(const NamespacePlan& plan, const FirstProcessOptions& options, ParentLink& parent,
                               sys::Link child_end, const std::function<int(ChildLink)>& body);

/// In a helper process: clones the real process beside it, tells the parent (Msg::staged) and only then lets `body`
/// run: both write to the same link, and the parent has to know of the process before it hears from it.
void tell_staged(ChildLink& link, std::uint64_t clone_flags, const std::function<int()>& body);

/// true when the first process must ask for its ids to be mapped.
bool maps_itself(const NamespacePlan& plan) noexcept;

/// Becomes uid and gid 0 of the user namespace that was made or joined; stays as it is where 0 is not mapped.
/// hidden: NamespacePlan::hidden
void become_namespace_root(bool hidden);

}  // namespace kelp::runtime
