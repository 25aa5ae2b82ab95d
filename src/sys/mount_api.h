#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/owned.h"

namespace kelp::sys {

/// A detached mount: it vanishes with its descriptor unless it was attached, so undoing costs nothing.
class MountFd {
 public:
  MountFd() = default;
  explicit MountFd(Fd fd) noexcept : fd_(std::move(fd)) {}
  [[nodiscard]] int get() const noexcept { return fd_.get(); }
  [[nodiscard]] bool valid() const noexcept { return fd_.valid(); }
  [[nodiscard]] Fd release() noexcept { return std::move(fd_); }

 private:
  Fd fd_;
};

/// Filters of older container engines refuse all of the new mount calls (open_tree, fsopen, move_mount, mount_setattr)
/// with ENOSYS or EPERM: true where that is so.
bool new_mount_calls_refused() noexcept;
/// From this call on, in this process, the functions below do without the new mount calls where these are refused:
/// mount(2) makes the mount over /dev or /dev/null, and MS_MOVE takes it to its place. Only for a process whose mount
/// namespace is its own and not shared with the host's, since the mount is seen there in between. One mount at a time:
/// attach it before the next is made. What only mount_setattr(2) can do stays an error.
void allow_mounts_by_mount2();
/// allow_mounts_by_mount2() was called, and the new calls are refused.
bool mounts_by_mount2() noexcept;

/// File system options in order; an empty second part makes it a flag ("ro"), else key=value (up to 255 bytes).
using FsOptions = std::vector<std::pair<std::string, std::string>>;

/// A detached clone of the mount at dirfd/path (a bind mount). path "" = dirfd itself (O_PATH will do). Symlinks are
/// followed unless `no_follow`.
/// throws  SysError; EINVAL when something that must stay hidden (a locked mount) lies below and not recursive
MountFd open_tree_clone(int dirfd, const char* path, bool recursive, bool no_follow = false);

/// A detached new instance of a file system.
///
/// attrs   MOUNT_ATTR_* (not MS_*)
/// throws  SysError; the message holds the kernel's own text from the file system descriptor where it gave one
/// source  fsopen(2), fsconfig(2), fsmount(2) (Linux 5.2)
MountFd fs_mount(const char* fstype, const FsOptions& options, unsigned attrs);

/// Attaches a detached mount over what `to_fd` (O_PATH, of the same kind: directory or not) names.
void move_mount(const MountFd& mount, int to_fd);
/// As above, to dirfd/path (symlinks are not followed).
void move_mount(const MountFd& mount, int dirfd, const char* path);

/// mount_setattr(2). path "" = fd itself. propagation: 0 or one of MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE.
void set_attrs(int fd, const char* path, std::uint64_t set, std::uint64_t clear, bool recursive,
               std::uint64_t propagation = 0);

struct OverlayPlan {
  std::vector<std::string> lowers;  ///< topmost first, absolute paths; up to 500
  std::string upper, work;          ///< both empty: a read-only overlay (needs two lowers)
  bool volatile_ = false;           ///< no syncs at all; the upper cannot be mounted again until its mark is removed
  bool index_on = true;             ///< so that a second mount of a living upper fails with EBUSY
  bool userxattr = true;            ///< user.overlay.* in place of trusted.overlay.*: all that a user namespace can do
};

/// A detached overlay. Layers go one by one (`lowerdir+`, Linux 6.8); older kernels get one option string, made
/// short by naming the layers through /proc/self/fd and checked against the page that mount(2) silently cuts at.
MountFd overlay(const OverlayPlan& plan);

}  // namespace kelp::sys
