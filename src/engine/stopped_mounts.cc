#include "engine/stopped_mounts.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "engine/mounts.h"
#include "store/volumes.h"
#include "sys/directory.h"
#include "sys/mount_api.h"
#include "sys/safe_path.h"

namespace kelp::engine {
namespace {

using store::MountRequest;

/// Invalid: nowhere on the host (a tmpfs, or gone).
Fd open_source(const MountRequest& request, const std::optional<store::VolumeRecord>& volume) {
  std::string path = request.source;
  if (request.type == "volume") {
    if (!volume) return {};
    const auto type = volume->options.find("type");
    if (type != volume->options.end() && type->second == "tmpfs") return {};
    path = volume->mountpoint;
  }
  Fd source(::open(path.c_str(), O_PATH | O_CLOEXEC));
  const std::string subpath = subpath_of(request);
  if (source && !subpath.empty()) source = sys::try_open_in_root(source.get(), subpath, O_PATH);
  if (!source) log::debug("mount {}: {} is gone", request.target, path);
  return source;
}

bool holds_something(int rootfd, const std::string& path) {
  const Fd directory = sys::try_open_in_root(rootfd, path, O_RDONLY | O_DIRECTORY);
  return directory && !sys::names_in(fmt::format("/proc/self/fd/{}", directory.get()), true).empty();
}

Fd open_mount_point(int rootfd, const std::string& target, bool directory, uid_t uid, gid_t gid) {
  if (Fd there = sys::try_open_in_root(rootfd, target, O_PATH)) return there;
  if (directory) return sys::mkdirs_in_root(rootfd, target, 0755, uid, gid);
  const size_t slash = target.rfind('/');
  const Fd parent = sys::mkdirs_in_root(rootfd, target.substr(0, slash + 1), 0755, uid, gid);
  Fd made(::openat(parent.get(), target.c_str() + slash + 1, O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (!made || ::fchown(made.get(), uid, gid) < 0) throw_errno("make the mount point {}", target);
  return made;
}

}  // namespace

void mount_volumes_of_stopped(Context& context, const store::ContainerRecord& record, int rootfd, uid_t uid,
                              gid_t gid) {
  std::vector<MountRequest> requests = record.config.mounts;
  for (MountRequest& request : requests) request.target = sys::clean_path(request.target);
  std::sort(requests.begin(), requests.end(),  // parents first
            [](const MountRequest& one, const MountRequest& other) { return one.target < other.target; });
  for (const MountRequest& request : requests) {
    if ((request.type != "bind" && request.type != "volume") || has_option(request, "O")) continue;
    std::optional<store::VolumeRecord> volume;
    if (request.type == "volume") volume = store::find_volume(context.layout, request.source);
    if (volume && volume->needs_copy_up && !has_option(request, "nocopy") && record.config.rootfs.empty() &&
        holds_something(rootfd, request.target))
      continue;
    const Fd source = open_source(request, volume);
    struct stat info {};
    if (!source || ::fstat(source.get(), &info) < 0) continue;
    const sys::MountFd mount = sys::open_tree_clone(source.get(), "", !has_option(request, "bind"));
    if (has_option(request, "ro")) sys::set_attrs(mount.get(), "", MOUNT_ATTR_RDONLY, 0, true);
    sys::move_mount(mount, open_mount_point(rootfd, request.target, S_ISDIR(info.st_mode), uid, gid).get());
  }
}

}  // namespace kelp::engine
