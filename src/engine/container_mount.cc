#include "engine/container_mount.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "base/text.h"
#include "engine/context.h"
#include "engine/rootfs.h"
#include "engine/runtime_client.h"
#include "engine/session.h"
#include "engine/stop.h"
#include "store/containers.h"
#include "sys/clone.h"
#include "sys/link.h"
#include "sys/lock.h"
#include "sys/mount_api.h"
#include "sys/namespaces.h"
#include "sys/procfs.h"

namespace kelp::engine {
namespace {

/// Only who owns the mount namespace may mount in it, and what is mounted in the host's would have to stay for ever.
void need_own_mounts(const char* verb) {
  const Fd mounts = sys::open_ns(0, "mnt"), users = sys::open_ns(0, "user");
  const Fd owner(::ioctl(mounts.get(), NS_GET_USERNS));
  struct stat ours {
  }, its{};
  const bool inside = owner && ::geteuid() == 0 && ::fstat(users.get(), &ours) == 0 &&
                      ::fstat(owner.get(), &its) == 0 && ours.st_ino == its.st_ino &&
                      trim(sys::read_file("/proc/self/uid_map")).find(" 4294967295") == std::string_view::npos;
  if (inside) return;
  throw UsageError(fmt::format("kelp {}: an ordinary user can mount only within a user namespace", verb))
      .with_hint(fmt::format("kelp unshare kelp {} ..., or a shell of `kelp unshare`", verb));
}

std::string mount_point(const Context& context, const store::ContainerRecord& record) {
  return record.config.rootfs.empty() ? context.layout.container(record.id) + "/merged" : record.config.rootfs;
}

bool is_mounted(const std::string& path) {
  const auto mounts = sys::read_mountinfo();
  return std::any_of(mounts.begin(), mounts.end(), [&](const auto& mount) { return mount.mount_point == path; });
}

/// A clone of what is mounted at `path` in the mount namespace of a monitor.
sys::MountFd clone_of_running(const store::RunState& state, const std::string& path, const std::string& name) {
  auto [ours, theirs] = sys::Link::pair();
  sys::Child child = sys::clone_child(0, [&, &ours = ours, &theirs = theirs]() -> int {
    ours.close();
    try {
      sys::join(sys::open_ns(state.monitor_pid, "mnt").get(), CLONE_NEWNS);
      const sys::MountFd mount = sys::open_tree_clone(AT_FDCWD, path.c_str(), false);
      theirs.send("mount", {mount.get()});
    } catch (const Error& error) {
      theirs.send(error.message());
    }
    return 0;
  });
  theirs.close();
  auto frame = ours.receive();
  child.wait();
  if (!frame) throw_error("the files of container {} cannot be reached", name);
  if (frame->fds.empty()) throw_error("mount container {}: {}", name, frame->data);
  return sys::MountFd(std::move(frame->fds.front()));
}

}  // namespace

std::string mount_container(Context& context, const store::ContainerRecord& record) {
  need_own_mounts("mount");
  const std::string path = mount_point(context, record);
  if (!record.config.rootfs.empty() || is_mounted(path)) return path;
  for (int tries = 0; tries < 2500; ++tries) {
    const auto status = store::status(context.layout, record);
    if (store::can_be_entered(status.status) && status.run) {
      const sys::MountFd mount = clone_of_running(*status.run, path, record.name);
      const Fd target(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
      if (!target) throw_errno("open {}", path);
      sys::move_mount(mount, target.get());
      return path;
    }
    // Held while we mount: a start that comes meanwhile waits.
    if (const auto lock = sys::FileLock::try_exclusive(store::container_lock(context.layout, record.id))) {
      mount_rootfs(stopped_rootfs(context, record));
      return path;
    }
    ::usleep(2000);
  }
  throw_error("container {} is in use by another command", record.name);
}

bool unmount_container(Context& context, const store::ContainerRecord& record, bool force) {
  const std::string path = mount_point(context, record);
  if (!record.config.rootfs.empty() || !is_mounted(path)) return false;
  need_own_mounts("unmount");
  if (::umount2(path.c_str(), force ? MNT_DETACH : 0) < 0) {
    const int saved = errno;
    SysError error(fmt::format("unmount container {}", record.name), saved);
    if (saved == EBUSY) error.with_hint("a program uses it; kelp unmount --force takes it away all the same");
    throw error;
  }
  return true;
}

std::vector<std::pair<store::ContainerRecord, std::string>> mounted_containers(Context& context) {
  need_own_mounts("mount");
  std::vector<std::pair<store::ContainerRecord, std::string>> found;
  for (const auto& record : store::list(context.layout)) {
    const std::string path = mount_point(context, record);
    if (record.config.rootfs.empty() && is_mounted(path)) found.emplace_back(record, path);
  }
  return found;
}

void clean_up_container(Context& context, const store::ContainerRecord& record) {
  // It waits for its start with everything made, which is what there is to take away.
  if (store::status(context.layout, record).status == store::Status::initialized) stop_container(context, record, 0);
  for (int tries = 0; tries < 2500; ++tries) {
    const auto status = store::status(context.layout, record).status;
    if (status != store::Status::created && status != store::Status::exited && status != store::Status::stopping)
      throw UsageError(
          fmt::format("container {} is {}: nothing of it can be cleaned up", record.name, store::status_name(status)))
          .with_hint("kelp stop " + record.name);
    // A monitor that is just ending has the lock for some milliseconds more.
    if (const auto lock = sys::FileLock::try_exclusive(store::container_lock(context.layout, record.id)))
      return clear_remains(context, record.id);
    ::usleep(2000);
  }
  throw_error("container {} is in use by another command", record.name);
}

}  // namespace kelp::engine
