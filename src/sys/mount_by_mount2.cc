#include "sys/mount_by_mount2.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "sys/procfs.h"

#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif
#ifndef MOUNT_ATTR_NOSYMFOLLOW
#define MOUNT_ATTR_NOSYMFOLLOW 0x00200000
#endif
#ifndef ST_NOSYMFOLLOW
#define ST_NOSYMFOLLOW 0x2000
#endif

namespace kelp::sys {
namespace {

/// Where a mount waits until it is moved: every host has the two, and nothing is looked up there meanwhile.
constexpr const char* kDirectory = "/dev";
constexpr const char* kFile = "/dev/null";

bool g_by_mount2 = false;

/// A call without sense fails with EINVAL where the kernel gets to see it.
bool refused(long result) { return result < 0 && (errno == ENOSYS || errno == EPERM); }

/// The same attribute for mount_setattr(2), for mount(2), and as statvfs(3) shows it.
struct Attribute {
  std::uint64_t attr;
  unsigned long flag, shown;
};
constexpr std::array<Attribute, 6> kAttributes = {{{MOUNT_ATTR_RDONLY, MS_RDONLY, ST_RDONLY},
                                                   {MOUNT_ATTR_NOSUID, MS_NOSUID, ST_NOSUID},
                                                   {MOUNT_ATTR_NODEV, MS_NODEV, ST_NODEV},
                                                   {MOUNT_ATTR_NOEXEC, MS_NOEXEC, ST_NOEXEC},
                                                   {MOUNT_ATTR_NODIRATIME, MS_NODIRATIME, ST_NODIRATIME},
                                                   {MOUNT_ATTR_NOSYMFOLLOW, MS_NOSYMFOLLOW, ST_NOSYMFOLLOW}}};

unsigned long atime_flag(std::uint64_t attrs) {
  switch (attrs & MOUNT_ATTR__ATIME) {
    case MOUNT_ATTR_NOATIME:
      return MS_NOATIME;
    case MOUNT_ATTR_STRICTATIME:
      return MS_STRICTATIME;
    default:
      return MS_RELATIME;
  }
}

unsigned long flags_of(std::uint64_t attrs) {
  unsigned long flags = atime_flag(attrs);
  for (const Attribute& known : kAttributes)
    if ((attrs & known.attr) != 0) flags |= known.flag;
  return flags;
}

/// MOUNT_ATTR_* of the mount at `path`.
std::uint64_t attrs_of(const std::string& path) {
  struct statvfs info {};
  if (::statvfs(path.c_str(), &info) < 0) throw_errno("look at the mount {}", path);
  std::uint64_t attrs = (info.f_flag & ST_NOATIME) != 0    ? MOUNT_ATTR_NOATIME
                        : (info.f_flag & ST_RELATIME) != 0 ? MOUNT_ATTR_RELATIME
                                                           : MOUNT_ATTR_STRICTATIME;
  for (const Attribute& known : kAttributes)
    if ((info.f_flag & known.shown) != 0) attrs |= known.attr;
  return attrs;
}

std::string path_of(int dirfd, const char* path) {
  if (*path == '/' || dirfd == AT_FDCWD) return path;
  return fmt::format("/proc/self/fd/{}{}{}", dirfd, *path == '\0' ? "" : "/", path);
}

void change(const std::string& path, std::uint64_t set, std::uint64_t clear) {
  const std::uint64_t attrs = (attrs_of(path) & ~clear) | set;
  if (::mount(nullptr, path.c_str(), nullptr, MS_REMOUNT | MS_BIND | flags_of(attrs), nullptr) < 0)
    throw_errno("set the attributes of a mount");
}

/// The mount that a path leads to; -1 where it leads nowhere.
int mount_id(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!fd && (errno == ENOENT || errno == ENOTDIR)) return -1;
  if (!fd) throw_errno("open {}", path);
  const std::string info = read_file(fmt::format("/proc/self/fdinfo/{}", fd.get()));
  const size_t at = info.find("mnt_id:");
  const auto id = at == std::string::npos
                      ? std::nullopt
                      : to_int(trim(std::string_view(info).substr(at + 7, info.find('\n', at) - at - 7)));
  if (!id) throw_error("/proc/self/fdinfo does not tell the mount of {}", path);
  return static_cast<int>(*id);
}

/// Paths of the mounts below the one at `path`, parents first.
std::vector<std::string> mounts_below(const std::string& path) {
  std::vector<int> ids = {mount_id(path)};
  std::vector<std::string> paths;
  const auto refuse = [] {
    throw_error("attributes of a whole tree of mounts need mount_setattr(2), which is refused here");
  };
  bool found = false;
  const std::vector<MountInfo> all = read_mountinfo();
  for (const MountInfo& mount : all) found = found || mount.id == ids[0];
  // One that our root directory does not lead to is not listed, nor is what lies below it.
  if (!found) refuse();
  for (size_t i = 0; i < ids.size(); ++i)
    for (const MountInfo& mount : all)
      if (mount.parent_id == ids[i] && mount.id != mount.parent_id) {
        ids.push_back(mount.id);
        paths.push_back(mount.mount_point);
      }
  // Over "/" lies a tree that is listed and that no path leads into. A mount that another one of the tree covers is out
  // of reach, too, for everybody: its path leads into the other one, or nowhere.
  std::vector<std::string> reached;
  for (std::string& below : paths) {
    const int id = mount_id(below);
    if (id == -1) continue;
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) refuse();
    reached.push_back(std::move(below));
  }
  return reached;
}

unsigned long super_flag(const std::string& option) {
  if (option == "ro") return MS_RDONLY;
  if (option == "sync") return MS_SYNCHRONOUS;
  if (option == "dirsync") return MS_DIRSYNC;
  if (option == "lazytime") return MS_LAZYTIME;
  if (option == "mand") return MS_MANDLOCK;
  return 0;
}

}  // namespace

bool new_mount_calls_refused() noexcept {
  constexpr unsigned kNoSuchFlag = 1U << 30U;
  // Each of the two came with its generation of calls (5.2, 5.12); filters list all of a generation.
  return refused(::open_tree(-1, "", kNoSuchFlag)) || refused(::mount_setattr(-1, "", 0, nullptr, 0));
}

void allow_mounts_by_mount2() {
  g_by_mount2 = new_mount_calls_refused();
  if (g_by_mount2) log::debug("the new mount calls are refused here ({}): using mount(2)", errno_text(errno));
}

bool mounts_by_mount2() noexcept { return g_by_mount2; }

MountFd mount_at(const std::string& path) {
  Fd fd(::open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!fd) throw_errno("open the mount {}", path);
  return MountFd(std::move(fd));
}

MountFd bind_by_mount2(int dirfd, const char* path, bool recursive, bool no_follow) {
  const unsigned follow = no_follow ? unsigned{O_NOFOLLOW} : 0U;
  const Fd source(*path == '\0' ? ::fcntl(dirfd, F_DUPFD_CLOEXEC, 3)
                                : ::openat(dirfd, path, static_cast<int>(O_PATH | O_CLOEXEC | follow)));
  const char* const name = *path == '\0' ? "a descriptor" : path;
  struct stat info {};
  if (!source || ::fstat(source.get(), &info) < 0) throw_errno("take {} as a bind mount", name);
  const char* const place = S_ISDIR(info.st_mode) ? kDirectory : kFile;
  if (::mount(path_of(source.get(), "").c_str(), place, nullptr, MS_BIND | (recursive ? MS_REC : 0), nullptr) < 0)
    throw_errno("take {} as a bind mount", name);
  return mount_at(place);
}

MountFd fs_by_mount2(const char* fstype, const FsOptions& options, unsigned attrs) {
  std::string source = fstype;
  std::string data;
  unsigned long flags = flags_of(attrs);
  for (const auto& [key, value] : options) {
    if (key == "source") {
      source = value;
    } else if (value.empty() && super_flag(key) != 0) {
      flags |= super_flag(key);
    } else {
      if (value.find(',') != std::string::npos)
        throw_error("{} option {}={}: a comma needs fsconfig(2), which is refused here", fstype, key, value);
      data += fmt::format("{}{}{}{}", data.empty() ? "" : ",", key, value.empty() ? "" : "=", value);
    }
  }
  if (data.size() >= 4095) throw_error("mount {}: its options are longer than mount(2) takes", fstype);
  if (::mount(source.c_str(), kDirectory, fstype, flags, data.c_str()) < 0) throw_errno("mount {}", fstype);
  return mount_at(kDirectory);
}

void move_by_mount2(int mount_fd, int dirfd, const char* path) {
  const std::string from = path_of(mount_fd, "");
  if (::mount(from.c_str(), path_of(dirfd, path).c_str(), nullptr, MS_MOVE, nullptr) == 0) return;
  const int saved = errno;
  ::umount2(from.c_str(), MNT_DETACH);  // /dev must not stay covered
  throw SysError(fmt::format("attach the mount{}{}", *path == '\0' ? "" : " to ", path), saved);
}

void set_attrs_by_mount2(int fd, const char* path, std::uint64_t set, std::uint64_t clear, bool recursive,
                         std::uint64_t propagation) {
  const std::string target = path_of(fd, path);
  if (propagation != 0 && ::mount(nullptr, target.c_str(), nullptr,
                                  static_cast<unsigned long>(propagation) | (recursive ? MS_REC : 0), nullptr) < 0)
    throw_errno("set the propagation of a mount");
  if (set == 0 && clear == 0) return;
  const std::vector<std::string> below = recursive ? mounts_below(target) : std::vector<std::string>();
  change(target, set, clear);
  for (const std::string& mount : below) change(mount, set, clear);
}

}  // namespace kelp::sys
