#include "cgroup/cgroupfs.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include <linux/magic.h>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "cgroup/cgroup.h"
#include "cgroup/device_filter.h"
#include "cgroup/stats.h"
#include "sys/procfs.h"

namespace kelp::cgroup {
namespace {

std::vector<std::string> words_of(const std::string& path) {
  try {
    const auto text = sys::try_read_file(path);
    return text ? split(trim(*text), ' ') : std::vector<std::string>();
  } catch (const Error&) {
    return {};
  }
}

bool contains(const std::vector<std::string>& list, const std::string& word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

std::string parent_of(const std::string& path) { return path.substr(0, path.rfind('/')); }

long now_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
}

/// Names of the groups directly below.
std::vector<std::string> children_of(const std::string& path) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(path.c_str()), ::closedir);
  if (!dir) return names;
  while (const dirent* entry = ::readdir(dir.get())) {
    const std::string_view name = entry->d_name;
    if (entry->d_type == DT_DIR && name != "." && name != "..") names.emplace_back(name);
  }
  return names;
}

/// Waits until `key` of cgroup.events has `value`; the kernel wakes pollers of that file with POLLPRI.
bool wait_event(const std::string& group, std::string_view key, std::uint64_t value, int timeout_ms) {
  const Fd events(::open((group + "/cgroup.events").c_str(), O_RDONLY | O_CLOEXEC));
  if (!events) return value == 0;
  const long deadline = now_ms() + timeout_ms;
  for (;;) {
    char text[256];
    const ssize_t n = ::pread(events.get(), text, sizeof text, 0);
    if (n < 0) return value == 0;  // the group went away
    if (stat_value({text, static_cast<size_t>(n)}, key) == value) return true;
    const long left = deadline - now_ms();
    if (left <= 0) return false;
    pollfd waiting{events.get(), POLLPRI, 0};
    ::poll(&waiting, 1, static_cast<int>(std::min(left, 50L)));
  }
}

bool remove_groups(const std::string& path, long deadline) {
  for (const std::string& child : children_of(path))
    if (!remove_groups(path + "/" + child, deadline)) return false;
  for (;;) {
    if (::rmdir(path.c_str()) == 0 || errno == ENOENT) return true;
    if (errno != EBUSY) throw_errno("remove the cgroup {}", path);
    const long left = deadline - now_ms();
    if (left <= 0) return false;
    // A process that was killed leaves its group a moment later; a zombie no longer counts.
    if (wait_event(path, "populated", 0, static_cast<int>(left))) {
      if (::rmdir(path.c_str()) == 0 || errno == ENOENT) return true;
      ::usleep(500);
    }
  }
}

void collect_processes(const std::string& path, std::vector<pid_t>& pids) {
  std::optional<std::string> text;
  try {
    text = sys::try_read_file(path + "/cgroup.procs", 16 << 20);
  } catch (const SysError& error) {
    if (error.code() != EOPNOTSUPP) throw;  // a threaded group lists its processes in the one above
  }
  if (text)
    for (const std::string& line : split(*text, '\n'))
      if (const auto pid = to_int(line, 1, INT32_MAX)) pids.push_back(static_cast<pid_t>(*pid));
  for (const std::string& child : children_of(path)) collect_processes(path + "/" + child, pids);
}

}  // namespace

std::vector<std::string> controllers_of(const std::string& group) { return words_of(group + "/cgroup.controllers"); }
std::vector<std::string> subtree_controllers_of(const std::string& group) {
  return words_of(group + "/cgroup.subtree_control");
}

bool used_by_v1(const std::string& controller) {
  const std::string name = controller == "io" ? "blkio" : controller;
  const auto text = sys::try_read_file("/proc/cgroups");
  if (!text) return false;
  for (const std::string& line : split(*text, '\n')) {
    const std::vector<std::string> fields = split(line, '\t');
    if (fields.size() >= 2 && fields[0] == name) return fields[1] != "0";
  }
  return false;
}

Lack lack_of(const std::string& controller) {
  if (used_by_v1(controller)) return Lack::v1;
  const bool real_root = !v2_mount().empty() && ::access((v2_mount() + "/cgroup.type").c_str(), F_OK) < 0;
  return real_root && !contains(controllers_of(v2_mount()), controller) ? Lack::kernel : Lack::delegation;
}

bool can_give_controllers(const std::string& group) {
  if (::access((group + "/cgroup.type").c_str(), F_OK) < 0) return true;  // only the root has none
  const auto inside = sys::try_read_file(group + "/cgroup.procs");
  return inside && trim(*inside).empty();
}

std::vector<std::string> enable_controllers(const std::string& group, const std::vector<std::string>& controllers) {
  std::vector<std::string> present = controllers_of(group);
  std::vector<std::string> missing;
  for (const std::string& name : controllers)
    if (!contains(present, name)) missing.push_back(name);
  if (!missing.empty() && group.size() > v2_mount().size()) {
    const std::string parent = parent_of(group);
    const std::vector<std::string> above = enable_controllers(parent, missing);
    for (const std::string& name : missing) {
      if (!contains(above, name) || !can_give_controllers(parent)) continue;
      try {
        // One at a time: a single refused one would otherwise refuse them all.
        sys::write_file(parent + "/cgroup.subtree_control", "+" + name);
      } catch (const SysError& error) {
        log::debug("enable the controller {} in {}: {}", name, parent, errno_text(error.code()));
      }
    }
    present = controllers_of(group);
  }
  std::vector<std::string> available;
  for (const std::string& name : controllers)
    if (contains(present, name)) available.push_back(name);
  return available;
}

bool make_group(const std::string& path) {
  if (::mkdir(path.c_str(), 0755) == 0) return true;
  if (errno == EEXIST) return false;
  throw_errno("make the cgroup {}", path);
}

int try_enter(const std::string& path) {
  try {
    const Fd dir = open_group(path);
    sys::CloneOptions options;
    options.cgroup_fd = dir.get();
    sys::Child child = sys::clone_child(
        0, [] { return 0; }, options);
    child.wait();
    return 0;
  } catch (const SysError& error) {
    return error.code();
  }
}

void write_limits(const std::string& group, const std::vector<LimitWrite>& writes) {
  if (writes.empty()) return;
  const std::vector<std::string> available = enable_controllers(group, needed_controllers(writes));
  for (const LimitWrite& write : writes) {
    if (!write.controller.empty() && !contains(available, write.controller)) {
      if (write.lifts) continue;
      MissingController missing = explain_missing(write.controller, write.asked, group, lack_of(write.controller));
      throw Error(std::move(missing.text)).with_hint(std::move(missing.hint));
    }
    try {
      const bool other = !write.or_file.empty() && ::access((group + "/" + write.file).c_str(), F_OK) < 0;
      sys::write_file(group + "/" + (other ? write.or_file : write.file), other ? write.or_value : write.value);
    } catch (const SysError& error) {
      // No swap in this kernel: "no limit" is then what there is.
      if (write.lifts && (error.code() == ENOENT || error.code() == EACCES)) continue;
      if (error.code() == ENOENT || error.code() == EACCES)
        throw Error(fmt::format("{}: this kernel has no {} in {}", write.asked, write.file, group))
            .with_hint(write.controller == "io"
                           ? "weights of disks need a kernel with BFQ_GROUP_IOSCHED or BLK_CGROUP_IOCOST; "
                             "or leave the option out"
                           : "boot a kernel that has it, or leave the option out");
      throw SysError(fmt::format("{}: write {} to {}", write.asked, quoted(write.value), write.file), error.code());
    }
  }
}

void share_weights(const std::string& x, const spec::Resources& resources) noexcept try {
  for (const LimitWrite& write : plan_limits(resources)) {
    if (!ends_with(write.file, ".weight") && write.file != "memory.low") continue;
    const bool other = !write.or_file.empty() && ::access((x + "/" + write.file).c_str(), F_OK) < 0;
    sys::write_file(x + "/" + (other ? write.or_file : write.file), other ? write.or_value : write.value);
  }
} catch (const Error& error) {
  log::debug("{}: {}", x, error.message());
}

Fd open_group(const std::string& path) {
  Fd dir(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!dir) throw_errno("open the cgroup {}", path);
  return dir;
}

void apply_limits(const std::string& path, const spec::Resources& resources) {
  if (resources.memory && resources.memory->check_before_update.value_or(false) && resources.memory->limit &&
      *resources.memory->limit > 0) {
    const Stats stats = read_stats(path);
    if (stats.memory && stats.memory->usage > static_cast<std::uint64_t>(*resources.memory->limit))
      throw_error("linux.resources.memory.limit: {} is below what is in use now, {}", *resources.memory->limit,
                  stats.memory->usage);
  }
  write_limits(path, plan_limits(resources));
  restrict_devices(path, resources.devices);
}

void move_into(const std::string& path, pid_t pid) { sys::write_file(path + "/cgroup.procs", std::to_string(pid)); }

std::vector<pid_t> processes(const std::string& path) {
  std::vector<pid_t> pids;
  collect_processes(path, pids);
  return pids;
}

bool exists(const std::string& path) { return !path.empty() && ::access((path + "/cgroup.procs").c_str(), F_OK) == 0; }

bool populated(const std::string& path) {
  const auto text = sys::try_read_file(path + "/cgroup.events");
  return text && stat_value(*text, "populated") == 1;
}

void freeze(const std::string& path, bool frozen, int timeout_ms) {
  sys::write_file(path + "/cgroup.freeze", frozen ? "1" : "0");
  if (wait_event(path, "frozen", frozen ? 1 : 0, timeout_ms)) return;
  if (frozen) sys::write_file(path + "/cgroup.freeze", "0");
  throw_error("{} the cgroup {}: not done within {} ms", frozen ? "freeze" : "thaw", path, timeout_ms);
}

bool frozen(const std::string& path) {
  const auto text = sys::try_read_file(path + "/cgroup.freeze", 64);
  return text && trim(*text) == "1";
}

void kill_all(const std::string& path) {
  try {
    sys::write_file(path + "/cgroup.kill", "1");
    return;
  } catch (const SysError& error) {
    if (error.code() != ENOENT) throw;
    if (!exists(path)) return;
  }
  // Before Linux 5.14: frozen processes cannot fork away from us; SIGKILL reaches them all the same.
  try {
    freeze(path, true, 2000);
  } catch (const Error& error) {
    log::debug("{}", error.message());
  }
  for (int round = 0; round < 10; ++round) {
    const std::vector<pid_t> pids = processes(path);
    if (pids.empty()) break;
    for (const pid_t pid : pids) ::kill(pid, SIGKILL);
    if (round == 0 && frozen(path)) sys::write_file(path + "/cgroup.freeze", "0");
    ::usleep(1000);
  }
}

bool remove_tree(const std::string& path, int timeout_ms) {
  if (path.empty()) return true;
  return remove_groups(path, now_ms() + timeout_ms);
}

}  // namespace kelp::cgroup
