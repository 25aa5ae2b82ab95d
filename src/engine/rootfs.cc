#include "engine/rootfs.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "base/error.h"
#include "base/log.h"
#include "base/program_path.h"
#include "base/text.h"
#include "cgroup/cgroup.h"
#include "sys/lock.h"
#include "sys/mount_api.h"
#include "sys/procfs.h"
#include "sys/spawn.h"
#include "sys/xattr_tree.h"

namespace kelp::engine {
namespace {

/// How long an older session of the same container may take to let go of its upper directory.
constexpr int kBusyTries = 400, kBusyPauseMicros = 5000;

Fd open_dir(const std::string& path, int flags = O_RDONLY) {
  Fd dir(::open(path.c_str(), flags | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  if (!dir) throw_errno("open {}", path);
  return dir;
}

/// Layers are named through short links.
Fd open_layer(const std::string& path) {
  Fd dir(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!dir) throw_errno("open the layer {}", path);
  return dir;
}

/// The upper directory's own owner, mode and attributes become those of `/`: they are the top layer's. Made under
/// another name first, so that a killed start does not leave a root that is 0700.
void make_upper(const RootfsPlan& plan) {
  const std::string upper = plan.directory + "/upper", fresh = upper + ".new";
  if (::access(upper.c_str(), F_OK) == 0) return;
  sys::remove_tree(fresh);
  if (::mkdir(fresh.c_str(), 0755) < 0) throw_errno("make {}", fresh);
  if (!plan.lowers.empty()) {
    sys::copy_attributes(open_layer(plan.lowers.front()).get(), open_dir(fresh).get());
  }
  if (::rename(fresh.c_str(), upper.c_str()) < 0) throw_errno("make {}", upper);
}

void make_directory(const std::string& path, mode_t mode) {
  if (::mkdir(path.c_str(), mode) < 0 && errno != EEXIST) throw_errno("make {}", path);
}

/// Bytes that a tmpfs may hold: half of what is free, here and in our control group; 0 when that is too little to be of
/// use.
std::uint64_t tmpfs_room() {
  constexpr std::uint64_t kLeast = 64U << 20U;
  std::uint64_t free = 0;
  const std::string text = sys::try_read_file("/proc/meminfo").value_or("");
  if (const size_t at = text.find("MemAvailable:"); at != std::string::npos)
    free = std::strtoull(text.c_str() + at + std::strlen("MemAvailable:"), nullptr, 10) * 1024;
  const std::string group = cgroup::group_of(0);
  const auto number = [&](const char* file) {
    return group.empty() ? std::nullopt : to_int(trim(sys::try_read_file(group + file).value_or("max")), 0);
  };
  if (const auto limit = number("/memory.max"))
    free = std::min(
        free, static_cast<std::uint64_t>(std::max<std::int64_t>(0, *limit - number("/memory.current").value_or(0))));
  return free / 2 < kLeast ? 0 : free / 2;
}

/// The upper directory in memory: for file systems that cannot hold one (an overlay, one without attributes).
bool mount_on_tmpfs(const RootfsPlan& plan) {
  const std::uint64_t room = tmpfs_room();
  if (!plan.volatile_overlay || room == 0) return false;
  // Where layers can have no attributes, what they hide is marked in a way that the kernel does not know.
  for (const std::string& lower : plan.lowers)
    if (::getxattr(lower.c_str(), "user.overlay.opaque", nullptr, 0) < 0 && errno == EOPNOTSUPP) return false;
  const std::string scratch = plan.directory + "/work";
  try {
    const sys::MountFd tmpfs =
        sys::fs_mount("tmpfs", {{"size", std::to_string(room)}, {"mode", "0700"}}, MOUNT_ATTR_NODEV);
    if (::fsetxattr(open_dir(fmt::format("/proc/self/fd/{}/.", tmpfs.get())).get(), "user.kelp.probe", "1", 1, 0) < 0)
      return false;  // kernels before 6.6: an upper directory without them cannot replace a directory
    const Fd place = open_dir(scratch, O_PATH);
    sys::move_mount(tmpfs, place.get());
  } catch (const SysError& error) {
    log::debug("no tmpfs: {}", error.message());
    return false;
  }
  try {
    RootfsPlan in_memory = plan;
    in_memory.directory = scratch;
    make_upper(in_memory);
    make_directory(scratch + "/work", 0700);
    sys::OverlayPlan overlay;
    overlay.lowers = plan.lowers;
    overlay.upper = scratch + "/upper";
    overlay.work = scratch + "/work";
    overlay.volatile_ = true;
    const sys::MountFd mount = sys::overlay(overlay);
    sys::move_mount(mount, open_dir(plan.directory + "/merged", O_PATH).get());
    return true;
  } catch (const SysError& error) {
    log::debug("no overlay over a tmpfs: {}", error.message());
    ::umount2(scratch.c_str(), MNT_DETACH);
    return false;
  }
}

/// Without attributes the kernel mounts an overlay all the same, in which no directory can be replaced.
void need_attributes(const std::string& upper) {
  const Fd dir = open_dir(upper);
  struct statfs info {};
  if (::fstatfs(dir.get(), &info) < 0) throw_errno("look at {}", upper);
  switch (static_cast<unsigned long>(info.f_type)) {
    case 0xef53:      // ext4
    case 0x58465342:  // xfs
    case 0x9123683e:  // btrfs
      return;
    default:
      break;
  }
  if (::fsetxattr(dir.get(), "user.overlay.kelp", "", 0, 0) < 0) throw_errno("set an attribute on {}", upper);
  ::fremovexattr(dir.get(), "user.overlay.kelp");
}

void mount_overlay(const RootfsPlan& plan) {
  sys::OverlayPlan overlay;
  overlay.lowers = plan.lowers;
  overlay.upper = plan.directory + "/upper";
  overlay.work = plan.directory + "/work";
  overlay.volatile_ = plan.volatile_overlay;
  need_attributes(overlay.upper);
  // A volatile mount leaves a mark that refuses every later one.
  if (::access((overlay.work + "/work/incompat").c_str(), F_OK) == 0) sys::remove_tree(overlay.work + "/work/incompat");
  for (int tries = 0;; ++tries) {
    try {
      const sys::MountFd mount = sys::overlay(overlay);
      const Fd target = open_dir(plan.directory + "/merged", O_PATH);
      sys::move_mount(mount, target.get());
      return;
    } catch (const SysError& error) {
      if (error.code() != EBUSY || tries == kBusyTries) throw;
    }
    ::usleep(kBusyPauseMicros);
  }
}

bool is_mounted(const std::string& path) {
  struct stat here {
  }, above{};
  return ::stat(path.c_str(), &here) == 0 && ::stat((path + "/..").c_str(), &above) == 0 && here.st_dev != above.st_dev;
}

/// true when a whiteout below is a marked file (see sys::make_whiteout_at), which fuse-overlayfs does not know.
bool has_marked_whiteouts(int dirfd) {
  char value = 0;
  const std::string self = fmt::format("/proc/self/fd/{}", dirfd);
  if (::getxattr(self.c_str(), "user.overlay.opaque", &value, 1) == 1 && value == 'x') return true;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::fdopendir(::fcntl(dirfd, F_DUPFD_CLOEXEC, 0)), ::closedir);
  while (const dirent* entry = dir ? ::readdir(dir.get()) : nullptr) {
    if (entry->d_type != DT_DIR || std::strcmp(entry->d_name, ".") == 0 || std::strcmp(entry->d_name, "..") == 0)
      continue;
    const Fd below(::openat(dirfd, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    if (below && has_marked_whiteouts(below.get())) return true;
  }
  return false;
}

bool on_overlay(const std::string& path) {
  struct statfs info {};
  return ::statfs(path.c_str(), &info) == 0 && static_cast<unsigned long>(info.f_type) == 0x794c7630;
}

/// The program stays in the foreground of a child: it becomes the monitor's, and ends with the mount namespace.
bool mount_fuse(const RootfsPlan& plan) {
  const std::string program = plan.fuse_program.empty() ? find_in_path("fuse-overlayfs") : plan.fuse_program;
  if (program.empty() || ::access("/dev/fuse", R_OK | W_OK) < 0) return false;
  for (const std::string& lower : plan.lowers)
    if (on_overlay(lower) && has_marked_whiteouts(open_layer(lower).get())) return false;
  const std::string merged = plan.directory + "/merged";
  sys::SpawnRequest request{.path = program, .argv = {"fuse-overlayfs", "-f", "-o"}};
  request.argv.push_back("lowerdir=" + join(plan.lowers, ":") + ",upperdir=" + plan.directory +
                         "/upper,workdir=" + plan.directory + "/work");
  request.argv.push_back(merged);
  request.fds = {{0, -1}, {1, -1}, {2, -1}};
  sys::Child child = sys::spawn(request);
  for (int i = 0; i < 1000; ++i) {
    if (is_mounted(merged)) {
      child.detach();
      return true;
    }
    if (child.wait_for(5)) return false;
  }
  return false;
}

void copy_layers(const RootfsPlan& plan) {
  const std::string upper = plan.directory + "/upper", done = plan.directory + "/copied";
  if (::access(done.c_str(), F_OK) < 0) {
    const Fd target = open_dir(upper);
    for (auto layer = plan.lowers.rbegin(); layer != plan.lowers.rend(); ++layer) {
      merge_layer(open_layer(*layer).get(), target.get());
    }
    const Fd mark(::open(done.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    if (!mark) throw_errno("make {}", done);
  }
  const Fd target = open_dir(plan.directory + "/merged", O_PATH);
  sys::move_mount(sys::open_tree_clone(AT_FDCWD, upper.c_str(), false), target.get());
}

}  // namespace

void merge_layer(int layer_fd, int target_fd) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::fdopendir(::fcntl(layer_fd, F_DUPFD_CLOEXEC, 0)), ::closedir);
  if (!dir) throw_errno("read a layer");
  ::rewinddir(dir.get());
  while (const dirent* entry = ::readdir(dir.get())) {
    const char* const name = entry->d_name;
    if (std::strcmp(name, ".") == 0 || std::strcmp(name, "..") == 0 || std::strcmp(name, sys::kOpaqueFile) == 0)
      continue;
    if (sys::is_whiteout_at(layer_fd, name)) {
      sys::remove_tree_at(target_fd, name);
      continue;
    }
    struct stat from {
    }, to{};
    if (::fstatat(layer_fd, name, &from, AT_SYMLINK_NOFOLLOW) < 0) throw_errno("look at {} in a layer", name);
    if (!S_ISDIR(from.st_mode)) {
      sys::remove_tree_at(target_fd, name);
      sys::copy_entry(layer_fd, name, target_fd, name);
      continue;
    }
    const Fd source(::openat(layer_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    if (!source) throw_errno("open {} in a layer", name);
    const bool there = ::fstatat(target_fd, name, &to, AT_SYMLINK_NOFOLLOW) == 0;
    if (there && (!S_ISDIR(to.st_mode) || sys::is_opaque(source.get()))) sys::remove_tree_at(target_fd, name);
    if (::mkdirat(target_fd, name, 0700) < 0 && errno != EEXIST) throw_errno("make {}", name);
    const Fd target(::openat(target_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    if (!target) throw_errno("open {}", name);
    merge_layer(source.get(), target.get());
    sys::copy_attributes(source.get(), target.get());
  }
}

std::string mount_points_layer(const std::string& layers_dir) {
  std::string path = layers_dir + "/mount-points";
  if (::access(path.c_str(), F_OK) == 0) return path;
  // A sweep takes this lock exclusively while it looks for what killed programs have left.
  const sys::FileLock birth = sys::FileLock::shared(layers_dir + "/../locks/layers-tmp");
  const std::string fresh = fmt::format("{}/.tmp-mount-points-{}", layers_dir, ::getpid());
  const mode_t before = ::umask(022);
  Rollback restore;
  restore.add([before] { ::umask(before); });
  if (::mkdir(fresh.c_str(), 0755) < 0) return "";
  const Fd dir = open_dir(fresh);
  for (const char* name : {"dev", "etc", "proc", "run", "sys"}) ::mkdirat(dir.get(), name, 0755);
  for (const char* name : {"etc/hostname", "etc/hosts", "etc/resolv.conf", "run/.containerenv"})
    Fd(::openat(dir.get(), name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  // Somebody else may have been quicker: then ours is not wanted.
  if (::rename(fresh.c_str(), path.c_str()) < 0) sys::remove_tree(fresh);
  return ::access(path.c_str(), F_OK) == 0 ? path : "";
}

void apply_storage_choice(RootfsPlan& plan, const std::string& driver, const std::vector<std::string>& options) {
  plan.driver = driver;
  for (const std::string& option : options) {
    const size_t equals = option.find('=');
    const std::string key = option.substr(0, equals);
    if (equals == std::string::npos || (key != "overlay.mount_program" && key != "mount_program"))
      throw_usage("--storage-opt {}: overlay.mount_program=FILE is known", quoted(option));
    plan.fuse_program = option.substr(equals + 1);
    if (driver == "vfs") throw_usage("--storage-opt {} and --storage-driver vfs exclude each other", quoted(option));
    if (::access(plan.fuse_program.c_str(), X_OK) < 0) throw_errno("--storage-opt: {}", quoted(plan.fuse_program));
  }
}

const char* mount_rootfs(const RootfsPlan& plan) {
  make_upper(plan);
  make_directory(plan.directory + "/work", 0700);
  make_directory(plan.directory + "/merged", 0700);
  // Once copied, always copied: the upper directory then holds everything.
  if (plan.driver == "vfs" || ::access((plan.directory + "/copied").c_str(), F_OK) == 0) {
    copy_layers(plan);
    return "copy";
  }
  if (!plan.fuse_program.empty()) {
    if (mount_fuse(plan)) return "fuse-overlayfs";
    throw_error("{} cannot mount the root file system", plan.fuse_program);
  }
  try {
    mount_overlay(plan);
    return "overlay";
  } catch (const SysError& error) {
    if (error.code() == EBUSY || error.code() == ENOENT || error.code() == ENOSPC || error.code() == EIO) throw;
    log::debug("no native overlay: {}", error.message());
    if (mount_on_tmpfs(plan)) return "overlay on tmpfs";
    if (mount_fuse(plan)) return "fuse-overlayfs";
    if (plan.driver == "overlay") throw;
    log::warn("neither overlay ({}) nor fuse-overlayfs can be had, the image is copied: kelp doctor tells more",
              errno_text(error.code()));
    copy_layers(plan);
    return "copy";
  }
}

}  // namespace kelp::engine
