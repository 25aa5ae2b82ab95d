// What the host allows: the ladder systemd scope → own writable group → none.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include <linux/magic.h>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "cgroup/cgroup.h"
#include "cgroup/cgroupfs.h"
#include "cgroup/entered.h"
#include "cgroup/systemd_scope.h"
#include "sys/lock.h"
#include "sys/procfs.h"
#include "sys/sd_bus.h"

namespace kelp::cgroup {
namespace {

const std::vector<std::string> kWanted = {"cpu", "cpuset", "io", "memory", "pids", "hugetlb"};

bool is_v2(const char* path) {
  struct statfs info {};
  return ::statfs(path, &info) == 0 && info.f_type == CGROUP2_SUPER_MAGIC;
}

/// The groups below which a child has been cloned into a group already, by inode, which is never used again before the
/// next boot. What can change meanwhile are permissions, and those are looked at each time.
class Entered {
 public:
  explicit Entered(const std::string& path) : path_(path) {
    if (path.empty()) return;
    const auto text = sys::read_small_file(path);
    if (text && starts_with(*text, sys::boot_id() + "\n")) text_ = *text;
  }
  [[nodiscard]] bool has(const std::string& group) const {
    const std::string line = line_of(group);
    return !line.empty() && text_.find("\n" + line) != std::string::npos;
  }
  void add(const std::string& group) {
    const std::string line = line_of(group);
    if (path_.empty() || line.empty()) return;
    if (text_.empty()) text_ = sys::boot_id() + "\n";
    text_ += line;
    try {
      sys::replace_file(path_, text_);
    } catch (const Error& error) {  // the directory is not there yet: the next start tries again
      log::debug("{}", error.message());
    }
  }

 private:
  static std::string line_of(const std::string& group) {
    struct stat info {};
    if (::stat(group.c_str(), &info) < 0) return "";
    return fmt::format("{} {} {}\n", info.st_dev, info.st_ino, group);
  }
  std::string path_, text_;
};

/// A group below `parent` can be made and entered?
int try_place(const std::string& parent, Entered& entered) {
  if (entered.has(parent)) return 0;
  const std::string path = fmt::format("{}/kelp-probe-{}", parent, ::getpid());
  try {
    make_group(path);
  } catch (const SysError& error) {
    return error.code();
  }
  const int result = try_enter(path);
  try {
    remove_tree(path, 200);
  } catch (const Error& error) {
    log::debug("{}", error.message());
  }
  if (result == 0) entered.add(parent);
  return result;
}

std::vector<std::string> controllers_for_children(const std::string& parent) {
  std::vector<std::string> wanted;
  for (const std::string& name : controllers_of(parent))
    if (std::find(kWanted.begin(), kWanted.end(), name) != kWanted.end()) wanted.push_back(name);
  std::vector<std::string> enabled = subtree_controllers_of(parent);
  if (!can_give_controllers(parent)) return enabled;
  for (const std::string& name : wanted)
    if (std::find(enabled.begin(), enabled.end(), name) == enabled.end()) {
      try {
        sys::write_file(parent + "/cgroup.subtree_control", "+" + name);
        enabled.push_back(name);
      } catch (const SysError&) {  // processes live in it (EBUSY), or it is not ours
      }
    }
  return enabled;
}

/// Our own group, or one above it that is ours too: the first one from which containers get controllers, else the
/// nearest that can be used at all. A group that holds processes (ours does) cannot give controllers to its children.
Place own_place(Entered& entered) {
  Place place;
  const std::string own = group_of(0);
  if (own.empty()) {
    place.reason = v2_mount().empty() ? "no cgroup v2 hierarchy is mounted" : "this process has no cgroup v2 path";
    return place;
  }
  for (std::string dir = own; dir.size() >= v2_mount().size(); dir = dir.substr(0, dir.rfind('/'))) {
    if (::access(dir.c_str(), W_OK) < 0 || ::access((dir + "/cgroup.procs").c_str(), W_OK) < 0) {
      if (place.parent.empty()) place.reason = fmt::format("{} is not writable", dir);
      break;
    }
    if (const int error = try_place(dir, entered); error != 0) {
      if (place.parent.empty()) place.reason = fmt::format("entering a group below {}: {}", dir, errno_text(error));
      continue;
    }
    std::vector<std::string> controllers = controllers_for_children(dir);
    if (place.parent.empty() || controllers.size() > place.controllers.size()) {
      place.manager = Manager::cgroupfs;
      place.parent = dir;
      place.controllers = std::move(controllers);
      place.reason.clear();
    }
    if (!place.controllers.empty()) break;
  }
  if (place.manager == Manager::none)
    place.hint = "log in through a systemd user session, or have a cgroup delegated to you";
  return place;
}

Place named_place(const std::string& parent, Entered& entered) {
  if (v2_mount().empty()) throw_error("--cgroup-parent: no cgroup v2 hierarchy is mounted");
  if (("/" + parent + "/").find("/../") != std::string::npos)
    throw_usage("--cgroup-parent: {} leads out of the hierarchy", quoted(parent));
  Place place;
  place.parent = v2_mount() + (starts_with(parent, "/") ? parent : "/" + parent);
  while (place.parent.size() > v2_mount().size() && place.parent.back() == '/') place.parent.pop_back();
  if (!exists(place.parent)) {
    try {
      make_group(place.parent);
    } catch (const Error& error) {
      throw Error(fmt::format("--cgroup-parent: {}", error.message()));
    }
  }
  if (const int error = try_place(place.parent, entered); error != 0)
    throw SysError(fmt::format("--cgroup-parent: enter a group below {}", place.parent), error);
  place.manager = Manager::cgroupfs;
  place.controllers = controllers_for_children(place.parent);
  return place;
}

}  // namespace

const char* manager_name(Manager manager) noexcept {
  switch (manager) {
    case Manager::systemd:
      return "systemd";
    case Manager::cgroupfs:
      return "cgroupfs";
    case Manager::none:
      break;
  }
  return "none";
}

const std::string& v2_mount() {
  static const std::string mount = [] {
    for (const char* path : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"})
      if (is_v2(path)) return std::string(path);
    return std::string();
  }();
  return mount;
}

std::string group_of(pid_t pid) {
  if (v2_mount().empty()) return "";
  const auto text = sys::try_read_file(pid == 0 ? "/proc/self/cgroup" : fmt::format("/proc/{}/cgroup", pid));
  if (!text) return "";
  for (const std::string& line : split(*text, '\n'))
    if (starts_with(line, "0::/")) {
      std::string path = line.substr(3);
      if (starts_with(path, "/..")) return "";  // outside of our cgroup namespace: no path here
      return path == "/" ? v2_mount() : v2_mount() + path;
    }
  return "";
}

Place probe(std::string_view wanted, const std::string& parent, const std::string& entered) {
  Place none;
  if (wanted == "disabled") {
    none.reason = "cgroups were switched off";
    return none;
  }
  const bool slice = ends_with(parent, ".slice");
  if (wanted == "systemd" || (wanted.empty() && (parent.empty() || slice))) {
    Place place = systemd_place(parent);
    if (place.manager == Manager::systemd) return place;
    if (wanted == "systemd" || slice) throw Error("systemd scope: " + place.reason).with_hint(place.hint);
    none = std::move(place);
  } else if (!wanted.empty() && wanted != "cgroupfs") {
    throw_usage("cgroup manager {} is not one of systemd, cgroupfs, disabled", quoted(wanted));
  }
  if (slice) throw_usage("--cgroup-parent: {} is a slice, which only the manager systemd has", quoted(parent));
  Entered memory(entered);
  Place place = parent.empty() ? own_place(memory) : named_place(parent, memory);
  if (place.manager == Manager::none && wanted == "cgroupfs")
    throw Error("cgroupfs: " + place.reason).with_hint(place.hint);
  if (!none.reason.empty() && place.manager == Manager::none) {
    place.reason = none.reason + "; " + place.reason;
    // Where systemd runs it is systemd that gives groups away.
    if (!none.hint.empty() && ::access("/run/systemd/system", F_OK) == 0) place.hint = none.hint;
  }
  return place;
}

Place probe(std::string_view wanted, const std::string& parent) { return probe(wanted, parent, ""); }

}  // namespace kelp::cgroup
