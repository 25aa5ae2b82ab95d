#include "sys/mount_api.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"
#include "base/log.h"
#include "sys/mount_by_mount2.h"

#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif

namespace kelp::sys {
namespace {

constexpr size_t kMaxValue = 255;  // fsconfig(2) copies 256 bytes with the terminator

/// What the file system itself says about the last failure ("overlay: No changes allowed…"); "" when nothing.
std::string fs_text(int fs) {
  std::string all;
  char buffer[512];
  for (;;) {
    const ssize_t size = ::read(fs, buffer, sizeof buffer);
    if (size <= 2) break;
    std::string_view line(buffer, static_cast<size_t>(size));
    if (line[0] == 'e' || line[0] == 'w') {
      line.remove_prefix(2);  // "e " error, "w " warning, "i " information
      while (!line.empty() && line.back() == '\n') line.remove_suffix(1);
      if (!all.empty()) all += "; ";
      all += line;
    }
  }
  return all;
}

[[noreturn]] void throw_fs(int fs, const std::string& what) {
  const int saved = errno;
  const std::string text = fs_text(fs);
  throw SysError(text.empty() ? what : what + ": " + text, saved);
}

void configure(int fs, const char* fstype, const std::string& key, const std::string& value) {
  const int done = value.empty() ? ::fsconfig(fs, FSCONFIG_SET_FLAG, key.c_str(), nullptr, 0)
                                 : ::fsconfig(fs, FSCONFIG_SET_STRING, key.c_str(), value.c_str(), 0);
  if (done < 0) throw_fs(fs, fmt::format("{} option {}{}{}", fstype, key, value.empty() ? "" : "=", value));
}

Fd open_fs(const char* fstype) {
  Fd fs(::fsopen(fstype, FSOPEN_CLOEXEC));
  if (!fs) throw_errno("file system {}", fstype);
  return fs;
}

MountFd create_mount(const Fd& fs, const char* fstype, unsigned attrs) {
  if (::fsconfig(fs.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) < 0)
    throw_fs(fs.get(), fmt::format("mount {}", fstype));
  MountFd mount(Fd(::fsmount(fs.get(), FSMOUNT_CLOEXEC, attrs)));
  if (!mount.valid()) throw_fs(fs.get(), fmt::format("mount {}", fstype));
  return mount;
}

void overlay_flags(int fs, const OverlayPlan& plan) {
  configure(fs, "overlay", "source", "overlay");
  if (plan.userxattr) configure(fs, "overlay", "userxattr", "");
  if (plan.upper.empty()) return;
  if (plan.index_on) configure(fs, "overlay", "index", "on");
  if (plan.volatile_) configure(fs, "overlay", "volatile", "");
}

/// Option strings have a length limit, and ':' ',' '\' have a meaning in them: such paths go by descriptor.
std::string option_path(const std::string& path, std::vector<Fd>& open) {
  if (path.size() <= kMaxValue && path.find_first_of(":,\\") == std::string::npos) return path;
  Fd fd(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!fd) throw_errno("open layer {}", path);
  std::string name = fmt::format("/proc/self/fd/{}", fd.get());
  open.push_back(std::move(fd));
  return name;
}

/// For kernels without lowerdir+: mount(2) takes one page of options and silently drops the rest. From the
/// directory /proc/self/fd each layer's name is a number of two or three digits, so 500 layers fit.
MountFd overlay_by_one_string(const OverlayPlan& plan) {
  std::vector<Fd> open;
  const auto numbered = [&](const std::string& path) {
    Fd fd(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!fd) throw_errno("open layer {}", path);
    std::string name = std::to_string(fd.get());
    open.push_back(std::move(fd));
    return name;
  };
  std::string options = "lowerdir=";
  for (size_t i = 0; i < plan.lowers.size(); ++i) options += (i == 0 ? "" : ":") + numbered(plan.lowers[i]);
  if (!plan.upper.empty()) options += ",upperdir=" + numbered(plan.upper) + ",workdir=" + numbered(plan.work);
  if (plan.userxattr) options += ",userxattr";
  if (!plan.upper.empty() && plan.index_on) options += ",index=on";
  if (!plan.upper.empty() && plan.volatile_) options += ",volatile";
  if (options.size() >= 4095) throw_error("overlay of {} layers: too many for this kernel", plan.lowers.size());

  const Fd before(::open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  // Mounted for a moment over a directory that only this overlay uses, then taken as a detached clone.
  const std::string& scratch = plan.work.empty() ? plan.lowers.front() : plan.work;
  if (::chdir("/proc/self/fd") < 0) throw_errno("change to /proc/self/fd");
  const int done = ::mount("overlay", scratch.c_str(), "overlay", 0, options.c_str());
  const int saved = errno;
  if (before && ::fchdir(before.get()) < 0) throw_errno("change back to the working directory");
  errno = saved;
  if (done < 0) throw_errno("mount overlay");
  if (mounts_by_mount2()) return mount_at(scratch);
  Rollback undo;
  undo.add([&] { ::umount2(scratch.c_str(), MNT_DETACH); });
  return open_tree_clone(AT_FDCWD, scratch.c_str(), false);
}

}  // namespace

MountFd open_tree_clone(int dirfd, const char* path, bool recursive, bool no_follow) {
  if (mounts_by_mount2()) return bind_by_mount2(dirfd, path, recursive, no_follow);
  const unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? unsigned{AT_RECURSIVE} : 0U) |
                         (no_follow ? unsigned{AT_SYMLINK_NOFOLLOW} : 0U) |
                         (*path == '\0' ? unsigned{AT_EMPTY_PATH} : 0U);
  MountFd mount(Fd(::open_tree(dirfd, path, flags)));
  if (!mount.valid()) throw_errno("take {} as a bind mount", *path == '\0' ? "a descriptor" : path);
  return mount;
}

MountFd fs_mount(const char* fstype, const FsOptions& options, unsigned attrs) {
  if (mounts_by_mount2()) return fs_by_mount2(fstype, options, attrs);
  const Fd fs = open_fs(fstype);
  for (const auto& [key, value] : options) configure(fs.get(), fstype, key, value);
  return create_mount(fs, fstype, attrs);
}

void move_mount(const MountFd& mount, int to_fd) {
  if (mounts_by_mount2()) return move_by_mount2(mount.get(), to_fd, "");
  if (::move_mount(mount.get(), "", to_fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
    throw_errno("attach the mount");
}

void move_mount(const MountFd& mount, int dirfd, const char* path) {
  if (mounts_by_mount2()) return move_by_mount2(mount.get(), dirfd, path);
  if (::move_mount(mount.get(), "", dirfd, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
    throw_errno("attach the mount to {}", path);
}

void set_attrs(int fd, const char* path, std::uint64_t set, std::uint64_t clear, bool recursive,
               std::uint64_t propagation) {
  if (mounts_by_mount2()) return set_attrs_by_mount2(fd, path, set, clear, recursive, propagation);
  mount_attr attr{};
  attr.attr_set = set;
  attr.attr_clr = clear;
  attr.propagation = propagation;
  const unsigned flags = (*path == '\0' ? unsigned{AT_EMPTY_PATH} : 0U) | (recursive ? unsigned{AT_RECURSIVE} : 0U);
  if (::mount_setattr(fd, path, flags, &attr, sizeof attr) < 0) throw_errno("set the attributes of a mount");
}

MountFd overlay(const OverlayPlan& plan) {
  if (plan.lowers.empty()) throw_error("overlay without a lower layer");
  if (mounts_by_mount2()) return overlay_by_one_string(plan);
  const Fd fs = open_fs("overlay");
  std::vector<Fd> open;
  // Before Linux 6.5 overlay takes options in the old form: any key is taken here and refused when all is mounted, so
  // it is a key without the value which it needs that tells. One string is what those kernels, and 6.5 to 6.7,
  // understand.
  bool by_one = ::fsconfig(fs.get(), FSCONFIG_SET_FLAG, "lowerdir+", nullptr, 0) < 0;
  for (const std::string& lower : plan.lowers) {
    if (!by_one) break;
    const std::string name = option_path(lower, open);
    if (::fsconfig(fs.get(), FSCONFIG_SET_STRING, "lowerdir+", name.c_str(), 0) < 0) {
      if (errno != EINVAL || &lower != &plan.lowers.front()) throw_fs(fs.get(), fmt::format("overlay layer {}", lower));
      by_one = false;
      break;
    }
  }
  if (!by_one) {
    log::debug("overlay: this kernel has no lowerdir+, using one option string");
    return overlay_by_one_string(plan);
  }
  overlay_flags(fs.get(), plan);
  if (!plan.upper.empty()) {
    configure(fs.get(), "overlay", "upperdir", option_path(plan.upper, open));
    configure(fs.get(), "overlay", "workdir", option_path(plan.work, open));
  }
  return create_mount(fs, "overlay", 0);
}

}  // namespace kelp::sys
