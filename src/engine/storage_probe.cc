#include "engine/storage_probe.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/error.h"
#include "base/program_path.h"
#include "base/text.h"
#include "engine/context.h"
#include "engine/host.h"
#include "engine/session.h"
#include "sys/mount_api.h"
#include "sys/procfs.h"
#include "sys/xattr_tree.h"

namespace kelp::engine {
namespace {

/// Mounts an overlay in the directory, in S, and takes it away again: "" or why it does not work.
std::string overlay_problem(Context& context, const std::string& scratch) {
  try {
    return ask_in_userns(context, [&scratch]() -> std::string {
      for (const char* part : {"/lower", "/lower/replaced", "/upper", "/work"}) {
        if (::mkdir((scratch + part).c_str(), 0700) != 0) return "cannot make a directory";
      }
      std::string failure;
      try {
        sys::OverlayPlan plan;
        plan.lowers = {scratch + "/lower"};
        plan.upper = scratch + "/upper";
        plan.work = scratch + "/work";
        const sys::MountFd mounted = sys::overlay(plan);
        const Fd file(::openat(mounted.get(), "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
        if (!file) throw_errno("write to an overlay");
        // A directory that replaces one of the image needs an attribute, whose lack shows only now.
        if (::unlinkat(mounted.get(), "replaced", AT_REMOVEDIR) < 0 || ::mkdirat(mounted.get(), "replaced", 0700) < 0)
          throw_errno("replace a directory in an overlay");
      } catch (const Error& error) {
        failure = error.message();
      }
      for (const char* part : {"/lower", "/upper", "/work"}) sys::remove_tree(scratch + part);
      return failure;
    });
  } catch (const Error& error) {
    return error.message();
  }
}

bool has_xattrs(const std::string& directory) {
  const bool had = ::setxattr(directory.c_str(), "user.kelp.probe", "1", 1, 0) == 0;
  if (had) ::removexattr(directory.c_str(), "user.kelp.probe");
  return had;
}

/// By the device number, for directories of a btrfs subvolume by the longest mount point above.
std::string filesystem_of(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) < 0) return "";
  std::string found, best;
  for (const sys::MountInfo& mount : sys::read_mountinfo()) {
    if (mount.major == major(info.st_dev) && mount.minor == minor(info.st_dev)) return mount.fs_type;
    const bool contains =
        mount.mount_point == "/" || path == mount.mount_point || starts_with(path, mount.mount_point + "/");
    if (contains && mount.mount_point.size() >= best.size()) {
      best = mount.mount_point;
      found = mount.fs_type;
    }
  }
  return found;
}

/// statfs tells what the directory really lies on, also where no mount that can be seen here is named for it. All that
/// FUSE serves has one number; what it is stands behind the dot of its type in mountinfo.
bool is_network(const std::string& path, const std::string& type) {
  // By numbers, as the kernel's own list of them leaves out some and older copies of it more.
  static constexpr std::uint32_t kNetwork[] = {0x6969 /* NFS */,        0x517B /* SMB */,      0xFE534D42 /* SMB 2 */,
                                               0xFF534D42 /* CIFS */,   0x01021997 /* 9p */,   0x5346414F /* AFS */,
                                               0x6B414653 /* kAFS */,   0x00C36400 /* Ceph */, 0x73757245 /* Coda */,
                                               0x0BD00BD0 /* Lustre */, 0x47504653 /* GPFS */, 0x19830326 /* BeeGFS */};
  constexpr std::uint32_t kFuse = 0x65735546;
  static constexpr const char* kOfFuse[] = {"virtiofs",       "fuse.sshfs",   "fuse.glusterfs", "fuse.ceph",
                                            "fuse.ceph-fuse", "fuse.rclone",  "fuse.s3fs",      "fuse.curlftpfs",
                                            "fuse.davfs",     "fuse.juicefs", "fuse.mfs",       "fuse.smbnetfs"};
  struct statfs info {};
  const auto number = ::statfs(path.c_str(), &info) == 0 ? static_cast<std::uint32_t>(info.f_type) : kFuse;
  if (number != kFuse) return std::find(std::begin(kNetwork), std::end(kNetwork), number) != std::end(kNetwork);
  return std::find(std::begin(kOfFuse), std::end(kOfFuse), type) != std::end(kOfFuse);
}

}  // namespace

StorageFacts probe_storage(Context& context) {
  store::Layout lasting = context.layout;  // without the run directory, whose lack says nothing about storage
  lasting.run = lasting.data;
  store::prepare(lasting);
  StorageFacts facts;
  std::string scratch = context.layout.data + "/.probe-XXXXXX";
  if (::mkdtemp(scratch.data()) == nullptr) throw_errno("make a directory in {}", context.layout.data);
  facts.overlay_problem = overlay_problem(context, scratch);
  facts.xattrs = has_xattrs(scratch);
  sys::remove_tree(scratch);
  facts.fuse_program = find_in_path("fuse-overlayfs");
  facts.fuse_device = context.host().fuse.get();
  facts.driver = facts.overlay_problem.empty() ? "overlay" : fuse_problem(facts).empty() ? "fuse-overlayfs" : "copy";
  facts.filesystem = filesystem_of(context.layout.data);
  facts.network = is_network(context.layout.data, facts.filesystem);
  struct statvfs space {};
  if (::statvfs(context.layout.data.c_str(), &space) == 0) {
    facts.total = std::uint64_t{space.f_blocks} * space.f_frsize;
    facts.free = std::uint64_t{space.f_bavail} * space.f_frsize;
    facts.free_files = space.f_favail;
  }
  return facts;
}

std::string fuse_problem(const StorageFacts& facts) {
  if (facts.fuse_program.empty()) return "is not installed";
  return facts.fuse_device ? "" : "needs /dev/fuse, which cannot be opened";
}

}  // namespace kelp::engine
