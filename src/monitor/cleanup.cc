#include "monitor/cleanup.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "sys/lock.h"
#include "sys/procfs.h"
#include "sys/xattr_tree.h"

namespace kelp::monitor {
namespace {

void for_each_entry(const std::string& path, const std::function<void(const char*)>& body) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(path.c_str()), ::closedir);
  if (!dir) return;
  while (const dirent* entry = ::readdir(dir.get()))
    if (std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0) body(entry->d_name);
}

bool names_us(const Plan& plan, const std::string& name) {
  char target[128];
  const ssize_t size = ::readlink((plan.names_dir + "/" + name).c_str(), target, sizeof target);
  return size > 0 && std::string_view(target, static_cast<size_t>(size)) == plan.id;
}

/// `rename` may have given the container another name since the plan was made.
void release_names(const Plan& plan) {
  if (!plan.name.empty() && names_us(plan, plan.name)) {
    ::unlink((plan.names_dir + "/" + plan.name).c_str());
    return;
  }
  for_each_entry(plan.names_dir, [&](const char* name) {
    if (names_us(plan, name)) ::unlink((plan.names_dir + "/" + name).c_str());
  });
}

/// Another container may use an anonymous volume by --volumes-from: its record then holds the volume's random name.
bool used_by_another(const Plan& plan, const std::string& volume) {
  bool used = false;
  for_each_entry(plan.containers_dir, [&](const char* id) {
    if (used || plan.id == id) return;
    try {
      const auto record = sys::read_small_file(plan.containers_dir + "/" + id + "/record.json");
      used = record && record->find(volume) != std::string::npos;
    } catch (const Error&) {
      used = true;  // unreadable: better a volume too many than one too few
    }
  });
  return used;
}

std::string trash_name(const Plan& plan) { return plan.trash_dir + "/" + plan.id; }
std::string trash_name_of_volume(const Plan& plan, const std::string& volume) {
  return plan.trash_dir + "/volume-" + volume;
}

void attempt(const char* what, const std::function<void()>& body) noexcept {
  try {
    body();
  } catch (const std::exception& error) {
    log::warn("{}: {}", what, error.what());
  }
}

/// The group and those below it, which a container may have made.
void remove_groups(const std::string& path) {
  for_each_entry(path, [&](const char* name) {
    const std::string below = path + "/" + name;
    struct stat info {};
    if (::lstat(below.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) remove_groups(below);
  });
  // Busy for a moment after its last process has gone.
  for (int tries = 0; ::rmdir(path.c_str()) < 0 && errno == EBUSY && tries < 50; ++tries) ::usleep(2000);
}

void remove_group(const Plan& plan) {
  const bool leaf_gone = ::rmdir((plan.cgroup + "/container").c_str()) == 0;
  // systemd removes its scope when the last process, which is this one, has left. Were the group gone before systemd
  // looks, it would never learn that it became empty, and list the scope for ever.
  if (ends_with(plan.cgroup, ".scope")) return;
  // Without groups that the container made itself that was all. A look at the directory is dear: it has a hundred
  // files.
  if (leaf_gone && ::rmdir(plan.cgroup.c_str()) == 0) return;
  remove_groups(plan.cgroup);
}

}  // namespace

void move_to_trash(const Plan& plan) noexcept {
  attempt("remove the container", [&] {
    for (const auto& volume : plan.anonymous_volumes) {
      if (used_by_another(plan, volume)) continue;
      ::rename((plan.volumes_dir + "/" + volume).c_str(), trash_name_of_volume(plan, volume).c_str());
    }
    if (::rename(plan.bundle.c_str(), trash_name(plan).c_str()) < 0 && errno != ENOENT)
      throw_errno("move {} to the trash", plan.bundle);
    release_names(plan);
  });
}

void clean_up(const Plan& plan) noexcept {
  std::vector<std::string> mounts = plan.mounts;
  if (!plan.merged.empty()) mounts.push_back(plan.merged);
  for (const auto& mount : mounts) {
    // The mount point may have moved to the trash with its directory.
    const std::string moved = trash_name(plan) + mount.substr(std::min(plan.bundle.size(), mount.size()));
    if (::umount2(mount.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && plan.remove)
      ::umount2(moved.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
  }
  // A tmpfs may hold the writable layer.
  if (plan.remove) ::umount2((trash_name(plan) + "/work").c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
  attempt("remove the run directory", [&] { sys::remove_tree(plan.run_dir); });
  for (const auto* file : {&plan.pid_file, &plan.monitor_pid_file})
    if (!file->empty()) ::unlink(file->c_str());
  if (!plan.cgroup.empty()) attempt("remove the cgroup", [&] { remove_group(plan); });
  if (!plan.remove) return;
  attempt("empty the trash", [&] {
    sys::remove_tree(trash_name(plan));
    for (const auto& volume : plan.anonymous_volumes) sys::remove_tree(trash_name_of_volume(plan, volume));
  });
  if (!plan.lock_path.empty()) ::unlink(plan.lock_path.c_str());
}

void forget_first_start(const Plan& plan) noexcept {
  if (plan.merged.empty() || ::access(plan.exit_file.c_str(), F_OK) == 0) return;
  attempt("remove the work directory", [&] { sys::remove_tree(plan.bundle + "/work"); });
}

}  // namespace kelp::monitor
