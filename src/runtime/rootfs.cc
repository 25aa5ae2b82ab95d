#include "runtime/rootfs.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <climits>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "cgroup/cgroup.h"
#include "sys/clone.h"
#include "sys/idmap.h"
#include "sys/namespaces.h"
#include "sys/procfs.h"
#include "sys/safe_path.h"
#include "sys/xattr_tree.h"

#ifndef MOUNT_ATTR_IDMAP
#define MOUNT_ATTR_IDMAP 0x00100000
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif

namespace kelp::runtime {
namespace {

struct stat stat_of(int fd, const std::string& name) {
  struct stat info {};
  if (::fstat(fd, &info) < 0) throw_errno("look at {}", name);
  return info;
}

/// The user namespace with the wanted map: one given by path, or that of a helper process that does nothing else.
Fd idmap_namespace(const MountOp& op) {
  if (!op.userns_path.empty()) {
    Fd userns(::open(op.userns_path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!userns) throw_errno("open the user namespace {}", op.userns_path);
    return userns;
  }
  sys::Child holder = sys::clone_child(CLONE_NEWUSER, [] {
    ::pause();
    return 0;
  });
  sys::write_id_maps(holder.pid, {op.uid_map, op.gid_map, false});
  return sys::open_ns(holder.pid, "user");
}

void apply_idmap(const sys::MountFd& mount, const MountOp& op) {
  const Fd userns = idmap_namespace(op);
  mount_attr attr{};
  attr.attr_set = MOUNT_ATTR_IDMAP;
  attr.userns_fd = static_cast<unsigned>(userns.get());
  const unsigned flags = unsigned{AT_EMPTY_PATH} | (op.idmap_recursive ? unsigned{AT_RECURSIVE} : 0U);
  if (::mount_setattr(mount.get(), "", flags, &attr, sizeof attr) < 0)
    throw_errno("map the ids of {} (an idmapped mount needs root over its file system)", op.source);
}

sys::MountFd open_bind_source(const MountOp& op) {
  sys::MountFd mount = sys::open_tree_clone(AT_FDCWD, op.source.c_str(), op.recursive, op.no_follow_source);
  if (op.idmapped) apply_idmap(mount, op);
  return mount;
}

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos || slash == 0 ? "/" : path.substr(0, slash);
}

/// The path that a dangling link at `path` stands for, inside the root; "" when there is no link.
std::string dangling_target(int root, const std::string& path) {
  const Fd parent = sys::try_open_in_root(root, parent_of(path), O_PATH | O_DIRECTORY);
  if (!parent) return {};
  char target[PATH_MAX];
  const ssize_t size = ::readlinkat(parent.get(), path.c_str() + path.rfind('/') + 1, target, sizeof target);
  if (size <= 0) return {};
  const std::string text(target, static_cast<size_t>(size));
  return sys::clean_path(text[0] == '/' ? text : parent_of(path) + "/" + text);
}

/// Where a mount goes: the existing place, else one made like the source (a directory or an empty file). A dangling
/// link of the image stands for its target, made inside the root.
Fd open_destination(int root, const std::string& path, bool directory, int links = 0) {
  Fd place = sys::try_open_in_root(root, path, O_PATH);
  if (place) return place;
  if (errno != ENOENT) throw_errno("open {} inside the root filesystem", path);
  if (const std::string target = dangling_target(root, path); !target.empty() && links < 40)
    return open_destination(root, target, directory, links + 1);
  if (directory) {
    sys::mkdirs_in_root(root, path, 0755);
  } else {
    if (parent_of(path) != "/") sys::mkdirs_in_root(root, parent_of(path), 0755);
    sys::open_in_root(root, path, O_WRONLY | O_CREAT, 0644);
  }
  return sys::open_in_root(root, path, O_PATH);
}

/// The place of a procfs or sysfs. A link of the image (or of a volume that others change meanwhile) must not make it
/// appear elsewhere: masks and read-only paths go by name. Opened once, so that nobody can swap what was looked at.
Fd open_place_without_links(int root, const std::string& path) {
  const Fd made = open_destination(root, path, true);
  try {
    return sys::open_beneath(root, path.substr(1), O_PATH | O_DIRECTORY);
  } catch (const SysError& error) {
    if (error.code() != ELOOP && error.code() != ENOTDIR) throw;
    throw_error("a link in the root filesystem leads elsewhere");
  }
}

/// Attributes as asked for. A user namespace may not clear what its parent's mount locked (nosuid and nodev of a home,
/// atime modes): then what can be set is set, which errs on the safe side.
void set_attrs_tolerant(const sys::MountFd& mount, std::uint64_t set, std::uint64_t clear, bool recursive) {
  if (set == 0 && clear == 0) return;
  try {
    sys::set_attrs(mount.get(), "", set, clear, recursive);
  } catch (const SysError& error) {
    constexpr std::uint64_t kAtime = MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME;
    if (error.code() != EPERM || (clear == 0 && (set & kAtime) == 0)) throw;
    const std::uint64_t without_atime = set & ~kAtime;
    if (without_atime != 0) sys::set_attrs(mount.get(), "", without_atime, 0, recursive);
  }
}

void set_attributes(const sys::MountFd& mount, const MountOp& op) {
  // A fresh mount was born with its attributes.
  if (op.kind == MountKind::bind) set_attrs_tolerant(mount, op.set, op.clear, false);
  set_attrs_tolerant(mount, op.set_recursive, op.clear_recursive, true);
  for (const Propagation& change : op.propagation) sys::set_attrs(mount.get(), "", 0, 0, change.recursive, change.mode);
}

/// The host's instance, for a file system whose new instance needs a namespace that the container does not own.
sys::MountFd bind_instead(const MountOp& op, const char* host_path, const SysError& reason) {
  log::debug("{} on {}: {}; binding {} instead", op.fstype, op.destination, errno_text(reason.code()), host_path);
  sys::MountFd mount = sys::open_tree_clone(AT_FDCWD, host_path, true);
  const std::uint64_t attrs = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
  set_attrs_tolerant(mount, (op.set & (attrs | MOUNT_ATTR_RDONLY)), 0, true);
  return mount;
}

bool refused(const SysError& error) { return error.code() == EPERM || error.code() == EACCES; }

sys::FsOptions without_gid(const sys::FsOptions& options) {
  sys::FsOptions rest;
  for (const auto& option : options)
    if (option.first != "gid") rest.push_back(option);
  return rest;
}

bool has_option(const sys::FsOptions& options, std::string_view key) {
  for (const auto& option : options)
    if (option.first == key) return true;
  return false;
}

/// What owners are shown as that this user namespace does not map: they cannot be given to anything.
constexpr std::uint32_t kNobody = 65534;

bool can_be_owner(int fd, std::uint32_t id) {
  struct stat before {};
  if (::fstat(fd, &before) < 0 || ::fchown(fd, id, id) < 0) return false;
  return ::fchown(fd, before.st_uid, before.st_gid) == 0;
}

/// A tmpfs takes over the mode of the directory that it covers unless told otherwise, and with tmpcopyup its contents.
sys::MountFd fresh_tmpfs(int root, const MountOp& op, const sys::FsOptions& options) {
  const Fd covered = sys::try_open_in_root(root, op.destination, O_RDONLY | O_DIRECTORY);
  const bool take_mode = covered && !has_option(options, "mode");
  if (!op.copy_up && !take_mode) return sys::fs_mount("tmpfs", options, static_cast<unsigned>(op.set));
  sys::MountFd mount = sys::fs_mount("tmpfs", options, 0);
  if (covered) {
    const Fd inside(::openat(mount.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!inside) throw_errno("open the new tmpfs");
    const bool nobody_is_mapped = op.copy_up && can_be_owner(inside.get(), kNobody);
    const auto known = [nobody_is_mapped](std::uint32_t id) { return id == kNobody && !nobody_is_mapped ? 0 : id; };
    sys::CopyOptions copy;
    copy.map_uid = copy.map_gid = known;
    if (op.copy_up) step("copy what is below", [&] { sys::copy_tree(covered.get(), inside.get(), copy); });
    struct stat info = stat_of(covered.get(), op.destination);
    info.st_uid = known(info.st_uid);
    info.st_gid = known(info.st_gid);
    if (take_mode && ::fchmod(inside.get(), info.st_mode & 07777) < 0) throw_errno("set the mode of the tmpfs");
    if (op.copy_up && !has_option(options, "uid") && ::fchown(inside.get(), info.st_uid, info.st_gid) < 0)
      throw_errno("set the owner of the tmpfs");
  }
  set_attrs_tolerant(mount, op.set, 0, false);
  return mount;
}

sys::MountFd fresh_mount(const MountContext& context, const MountOp& op) {
  sys::FsOptions options = op.data;
  if (!op.source.empty() && op.source != "none") options.emplace_back("source", op.source);
  // Without SELinux no file system knows labels.
  if (takes_label(op) && !context.mount_label.empty() && ::access("/sys/fs/selinux/enforce", F_OK) == 0)
    options.emplace_back("context", context.mount_label);
  const auto attrs = static_cast<unsigned>(op.set);
  if (op.fstype == "tmpfs") return fresh_tmpfs(context.root, op, options);
  try {
    return sys::fs_mount(op.fstype.c_str(), options, attrs);
  } catch (SysError& error) {
    if (op.fstype == "sysfs" && refused(error)) return bind_instead(op, "/sys", error);
    if (op.fstype == "mqueue" && refused(error)) {
      if (::access("/dev/mqueue", F_OK) == 0) return bind_instead(op, "/dev/mqueue", error);
      return sys::fs_mount("tmpfs", {{"mode", "1777"}}, attrs);  // nor has the host one: an empty directory
    }
    if (op.fstype == "devpts" && error.code() == EINVAL && has_option(options, "gid")) {
      log::debug("devpts: the group of terminals is not mapped here, it stays the caller's");
      return sys::fs_mount("devpts", without_gid(options), attrs);
    }
    if (op.fstype == "proc" && refused(error) && context.may_share_proc) {
      log::warn(
          "the /proc here is partly covered, so the container sees the processes outside: kelp doctor tells more");
      return bind_instead(op, "/proc", error);
    }
    if (op.fstype == "proc" && refused(error))
      error.with_hint(
          "a new /proc is refused where the one outside is partly covered (inside another container): "
          "start that one with its /proc unmasked, or share its pid namespace and bind /proc");
    throw;
  }
}

sys::MountFd cgroup_mount(const MountContext& context, const MountOp& op) {
  if (context.new_cgroup_ns) {
    try {
      return sys::fs_mount("cgroup2", {{"source", "cgroup"}}, static_cast<unsigned>(op.set));
    } catch (const SysError& error) {
      log::debug("cgroup2 on {}: {}", op.destination, error.what());
    }
  }
  // Without a namespace of its own the container sees the host's tree.
  const std::string& tree = cgroup::v2_mount();
  sys::MountFd mount = sys::open_tree_clone(AT_FDCWD, tree.empty() ? "/sys/fs/cgroup" : tree.c_str(), true);
  set_attrs_tolerant(mount, op.set, 0, true);
  return mount;
}

void remount(int root, const MountOp& op) {
  const Fd place = sys::open_in_root(root, op.destination, O_PATH);
  sys::set_attrs(place.get(), "", op.set, op.clear, false);
  if (op.set_recursive != 0 || op.clear_recursive != 0)
    sys::set_attrs(place.get(), "", op.set_recursive, op.clear_recursive, true);
  for (const Propagation& change : op.propagation) sys::set_attrs(place.get(), "", 0, 0, change.recursive, change.mode);
}

sys::MountFd apply_one(const MountContext& context, const MountOp& op, sys::MountFd given) {
  if (op.kind == MountKind::remount) {
    remount(context.root, op);
    return {};
  }
  sys::MountFd mount = std::move(given);
  if (!mount.valid()) {
    mount = op.kind == MountKind::bind     ? open_bind_source(op)
            : op.kind == MountKind::cgroup ? cgroup_mount(context, op)
                                           : fresh_mount(context, op);
  }
  const bool directory = op.kind != MountKind::bind || S_ISDIR(stat_of(mount.get(), op.source).st_mode);
  set_attributes(mount, op);
  const bool of_the_kernel = op.fstype == "proc" || op.fstype == "sysfs";
  const Fd place = of_the_kernel ? open_place_without_links(context.root, op.destination)
                                 : open_destination(context.root, op.destination, directory);
  sys::move_mount(mount, place.get());
  return mount;
}

/// /dev/null of the container, and no other file: one that a link or the image puts there would be seen through the
/// mask.
Fd open_null(int root) {
  Fd null = sys::open_in_root(root, "/dev/null", O_PATH);
  const struct stat info = stat_of(null.get(), "/dev/null");
  if (!S_ISCHR(info.st_mode) || info.st_rdev != makedev(1, 3))
    throw_error("/dev/null of the root filesystem is not the null device");
  return null;
}

/// pivot_root refuses a new root whose parent mount is shared; only a configuration that wants the tree shared has one.
void make_parent_private(const std::string& rootfs) {
  std::string best;
  for (const sys::MountInfo& mount : sys::read_mountinfo()) {
    const bool contains =
        mount.mount_point == "/" || rootfs == mount.mount_point || starts_with(rootfs, mount.mount_point + "/");
    if (contains && mount.mount_point.size() >= best.size()) best = mount.mount_point;
  }
  if (!best.empty()) sys::set_attrs(AT_FDCWD, best.c_str(), 0, 0, false, MS_PRIVATE);
}

}  // namespace

MountSources open_mount_sources(const MountPlan& plan, const std::string& rootfs, bool all) {
  MountSources sources;
  sources.binds.resize(plan.ops.size());
  sources.from_outside = all;
  if (all) sources.rootfs = sys::open_tree_clone(AT_FDCWD, rootfs.c_str(), true);
  for (size_t i = 0; i < plan.ops.size(); ++i) {
    const MountOp& op = plan.ops[i];
    if (op.kind != MountKind::bind || !(all || op.idmapped)) continue;
    try {
      if (op.idmapped && sys::new_mount_calls_refused())
        throw_error("an idmapped mount needs mount_setattr(2), which is refused here");
      sources.binds[i] = open_bind_source(op);
    } catch (Error& error) {
      error.add_context(fmt::format("mounts[{}]: bind on {}", op.index, op.destination));
      throw;
    }
  }
  return sources;
}

sys::MountFd attach_root_in_place(const std::string& rootfs) {
  sys::MountFd mount = sys::open_tree_clone(AT_FDCWD, rootfs.c_str(), true);
  if (!S_ISDIR(stat_of(mount.get(), rootfs).st_mode)) throw_error("{} is no directory", rootfs);
  sys::set_attrs(mount.get(), "", 0, 0, true, MS_PRIVATE);
  sys::move_mount(mount, AT_FDCWD, rootfs.c_str());
  return mount;
}

Fd attach_root(const MountPlan& plan, MountSources& sources, const std::string& rootfs) {
  if (plan.initial_propagation != 0) {
    if (::mount(nullptr, "/", nullptr, MS_REC | plan.initial_propagation, nullptr) < 0)
      throw_errno("set the propagation of the mount tree");
  } else {
    make_parent_private(rootfs);
  }
  sys::MountFd mount = std::move(sources.rootfs);
  if (!mount.valid()) mount = sys::open_tree_clone(AT_FDCWD, rootfs.c_str(), true);
  if (!S_ISDIR(stat_of(mount.get(), rootfs).st_mode)) throw_error("{} is no directory", rootfs);
  // Attached over "/" of the old tree rather than over its own path: nobody needs to be able to reach that path.
  sys::move_mount(mount, AT_FDCWD, "/");
  // Taken outside it still is a peer of the host's: pivot_root refuses that, and mounts below it would appear there.
  if (sources.from_outside)
    sys::set_attrs(mount.get(), "", 0, 0, plan.initial_propagation != 0,
                   plan.initial_propagation != 0 ? plan.initial_propagation : std::uint64_t{MS_PRIVATE});
  return mount.release();
}

void detach_root(const std::string& rootfs) noexcept {
  if (::umount2(rootfs.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
    log::warn("unmount {}: {}", rootfs, errno_text(errno));
}

std::vector<sys::MountFd> apply_mounts(const MountContext& context, const MountPlan& plan, MountSources& sources) {
  std::vector<sys::MountFd> readonly_later;
  for (size_t i = 0; i < plan.ops.size(); ++i) {
    const MountOp& op = plan.ops[i];
    try {
      if (sources.from_outside && sources.binds[i].valid() && plan.initial_propagation != 0)
        sys::set_attrs(sources.binds[i].get(), "", 0, 0, true, plan.initial_propagation);
      if (op.fstype == "tmpfs" && op.kind != MountKind::remount && (op.set & MOUNT_ATTR_RDONLY) != 0) {
        MountOp writable = op;
        writable.set &= ~std::uint64_t{MOUNT_ATTR_RDONLY};
        readonly_later.push_back(apply_one(context, writable, std::move(sources.binds[i])));
      } else {
        apply_one(context, op, std::move(sources.binds[i]));
      }
    } catch (Error& error) {
      const std::string what = op.kind == MountKind::bind ? "bind " + op.source : "mount " + op.fstype;
      error.add_context(fmt::format("mounts[{}]: {} on {}", op.index, what, op.destination));
      throw;
    }
  }
  return readonly_later;
}

void mask_paths(int root, const std::vector<std::string>& paths) {
  std::string first_masked_dir;
  for (const std::string& path : paths) {
    const Fd place = sys::try_open_in_root(root, path, O_PATH);
    if (!place) {
      if (errno == ENOENT || errno == ENOTDIR) continue;
      throw_errno("mask {}", path);
    }
    if (!S_ISDIR(stat_of(place.get(), path).st_mode)) {
      sys::move_mount(sys::open_tree_clone(open_null(root).get(), "", false), place.get());
    } else if (first_masked_dir.empty()) {
      // One empty, read-only tmpfs covers all masked directories.
      sys::move_mount(sys::fs_mount("tmpfs", {{"nr_blocks", "1"}, {"nr_inodes", "1"}}, MOUNT_ATTR_RDONLY), place.get());
      first_masked_dir = path;
    } else {
      const Fd empty = sys::open_in_root(root, first_masked_dir, O_PATH);
      sys::move_mount(sys::open_tree_clone(empty.get(), "", false), place.get());
    }
  }
}

void make_paths_readonly(int root, const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    const Fd place = sys::try_open_in_root(root, path, O_PATH);
    if (!place) {
      if (errno == ENOENT || errno == ENOTDIR) continue;
      throw_errno("make {} read-only", path);
    }
    try {
      const sys::MountFd mount = sys::open_tree_clone(place.get(), "", true);
      sys::set_attrs(mount.get(), "", MOUNT_ATTR_RDONLY, 0, true);
      sys::move_mount(mount, place.get());
    } catch (Error& error) {
      error.add_context("make " + path + " read-only");
      throw;
    }
  }
}

void make_readonly(int root) { sys::set_attrs(root, "", MOUNT_ATTR_RDONLY, 0, false); }

sys::LateUnmount pivot_into(int root, bool no_pivot, bool shared_tree) {
  sys::LateUnmount old_root;
  const Fd old(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!old) throw_errno("open the old root");
  if (::fchdir(root) < 0) throw_errno("change into the root filesystem");
  if (no_pivot) {
    // It is mounted over "/" already; chroot makes it the place where our paths begin.
    if (::chroot(".") < 0) throw_errno("change root");
  } else {
    // The same directory twice: the old root ends up mounted on top of the new one, and needs no place inside it.
    if (::syscall(SYS_pivot_root, ".", ".") < 0)
      throw SysError("pivot_root", errno).with_hint("a root filesystem on ramfs cannot be pivoted: use --no-pivot");
    if (::fchdir(old.get()) < 0) throw_errno("change to the old root");
    // In a shared tree the unmount would reach the host.
    if (shared_tree && ::mount(nullptr, ".", nullptr, MS_SLAVE | MS_REC, nullptr) < 0)
      throw_errno("make the old root a slave");
    step("let go of the old root", [&] { old_root.start(); });
  }
  if (::chdir("/") < 0) throw_errno("change to /");
  return old_root;
}

void set_root_propagation(const MountPlan& plan) {
  for (const Propagation& change : plan.root_propagation)
    sys::set_attrs(AT_FDCWD, "/", 0, 0, change.recursive, change.mode);
}

}  // namespace kelp::runtime
