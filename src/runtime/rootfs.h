#pragma once

#include <string>
#include <vector>

#include "base/owned.h"
#include "runtime/plan_mounts.h"
#include "sys/late_unmount.h"
#include "sys/mount_api.h"

/// The container's file system tree: everything happens below a descriptor of the new root, by openat2 with
/// RESOLVE_IN_ROOT, so that no link of an image and no race can lead a mount out of it. New mounts are made detached
/// and attached when they are complete.
namespace kelp::runtime {

/// What the runtime opened before the clone, because the container's own user cannot: its root may not be able to pass
/// the caller's private directories, and an idmapped mount needs the right over the source's file system.
struct MountSources {
  sys::MountFd rootfs;              ///< not valid: the first process takes it itself
  std::vector<sys::MountFd> binds;  ///< by index of MountPlan::ops; not valid where not opened
  bool from_outside = false;        ///< taken in another mount namespace: they are peers of what the host mounts there
};

/// Takes the root (`with_rootfs`) and bind sources as detached mounts: all of them when `all`, else the idmapped ones.
MountSources open_mount_sources(const MountPlan& plan, const std::string& rootfs, bool all);

/// Sets the propagation of the whole tree, mounts the root filesystem over "/" (pivot_root wants a mount point; host
/// paths go on to mean the old tree, since our root directory stays below it) and returns it, O_PATH.
Fd attach_root(const MountPlan& plan, MountSources& sources, const std::string& rootfs);
/// For a container without a mount namespace of its own, in the runtime itself: mounts the root filesystem over itself,
/// cut off from its peers, so that detaching that one mount takes all that is mounted below along.
sys::MountFd attach_root_in_place(const std::string& rootfs);
/// Undoes attach_root_in_place(). Best effort.
void detach_root(const std::string& rootfs) noexcept;

/// How fresh file systems that need a namespace of their own fall back.
struct MountContext {
  int root = -1;  ///< borrowed
  bool new_cgroup_ns = false;
  std::string mount_label;
  /// The annotation io.kelp.shared-proc=allowed: where a /proc of its own is refused (in a container whose /proc is
  /// partly covered), the container gets the outer one rather than an error.
  bool may_share_proc = false;
};
/// All entries in order. throws Error "mounts[3]: mount proc on /proc: …"
/// returns  the mounts that become read-only once all that belongs below them is there: a tmpfs starts empty
[[nodiscard]] std::vector<sys::MountFd> apply_mounts(const MountContext& context, const MountPlan& plan,
                                                     MountSources& sources);

/// Below here: before the pivot, on the finished tree.
void mask_paths(int root, const std::vector<std::string>& paths);
void make_paths_readonly(int root, const std::vector<std::string>& paths);
void make_readonly(int root);

/// Makes `root` the root of this mount namespace. No path leads to the old one any more; it is gone for good when what
/// is returned has been waited for.
///
/// no_pivot     chroot into it (attach_root() has put it over "/"), for hosts that run on a ramfs
/// shared_tree  the old tree is shared with the host: cut it off before it is unmounted here
[[nodiscard]] sys::LateUnmount pivot_into(int root, bool no_pivot, bool shared_tree);
/// linux.rootfsPropagation of the new root.
void set_root_propagation(const MountPlan& plan);

}  // namespace kelp::runtime
