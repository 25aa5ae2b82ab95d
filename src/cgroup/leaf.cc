// The group that a configuration asks for (kelp-oci).
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "cgroup/cgroup.h"
#include "cgroup/cgroupfs.h"
#include "cgroup/device_filter.h"
#include "cgroup/systemd_scope.h"
#include "sys/procfs.h"
#include "sys/sd_bus.h"

namespace kelp::cgroup {
namespace {

/// Makes the groups of `path` that are missing. returns true when the last one was made here; throws SysError.
bool make_path(const std::string& path) {
  for (size_t slash = path.find('/', v2_mount().size() + 1);; slash = path.find('/', slash + 1)) {
    const std::string dir = path.substr(0, slash);
    const bool made = !exists(dir) && make_group(dir);
    if (slash == std::string::npos) return made;
  }
}

/// Why no group can be had, where nothing was asked of one.
struct NoGroup {
  std::string reason, hint;
};

[[noreturn]] void refuse_limits(const std::vector<LimitWrite>& writes, const NoGroup& why) {
  for (const LimitWrite& write : writes) {
    if (write.lifts) continue;
    MissingController missing = explain_missing(write.controller, write.asked, "", lack_of(write.controller));
    Error error(fmt::format("{}: {}", missing.text, why.reason));
    error.with_hint(missing.hint);
    throw error;
  }
  throw_error("{}", why.reason);
}

std::string wanted_path(const std::string& cgroups_path, const std::string& id, NoGroup& why) {
  if (("/" + cgroups_path + "/").find("/../") != std::string::npos)
    throw_error("linux.cgroupsPath: {} leads out of the hierarchy", quoted(cgroups_path));
  if (v2_mount().empty()) {
    why.reason = "no cgroup v2 hierarchy is mounted";
    return "";
  }
  if (starts_with(cgroups_path, "/")) return v2_mount() + cgroups_path;
  try {
    return probe("cgroupfs").parent + "/" + (cgroups_path.empty() ? id : cgroups_path);
  } catch (const Error& error) {
    why = {error.message(), error.hint()};
    return "";
  }
}

/// true when processes have run in the group; cpu.stat counts without any controller.
bool was_used(const std::string& path) {
  const auto stat = sys::try_read_file(path + "/cpu.stat");
  return stat && !starts_with(*stat, "usage_usec 0\n");
}

/// Kernels since 6.14 kill whatever is cloned into a group that cgroup.kill has ever been written to: a new one in its
/// place.
void renew(Leaf& leaf) {
  leaf.fd.reset();
  if (!remove_tree(leaf.path, 0)) throw_error("linux.cgroupsPath: {} is still in use", leaf.path);
  make_group(leaf.path);
  leaf.fd = open_group(leaf.path);
}

Leaf make_directory_leaf(const std::string& cgroups_path, const std::string& id, bool limited, NoGroup& why) {
  Leaf leaf;
  const std::string path = wanted_path(cgroups_path, id, why);
  if (path.empty()) return leaf;
  try {
    leaf.made = make_path(path);
    leaf.path = path;
    leaf.fd = open_group(path);
  } catch (const SysError& error) {
    if (limited) throw;
    why.reason = error.message();
    return Leaf();
  }
  if (!leaf.made) {
    if (populated(path)) throw_error("linux.cgroupsPath: {} already holds processes", path);
    if (was_used(path)) renew(leaf);
    return leaf;
  }
  if (const int error = try_enter(path); error != 0) {
    why.reason = fmt::format("entering {}: {}", path, errno_text(error));
    remove_tree(path, 100);
    return Leaf();
  }
  return leaf;
}

/// "slice:prefix:name": a scope of systemd, begun with a process that waits until the container has come.
Leaf make_scope_leaf(const std::string& cgroups_path, const std::string& id) {
  const std::vector<std::string> parts = split(cgroups_path, ':');
  if (!cgroups_path.empty() && parts.size() != 3)
    throw_error("linux.cgroupsPath: {} is not SLICE:PREFIX:NAME, as --systemd-cgroup has it", quoted(cgroups_path));
  const Place place = systemd_place(parts.empty() ? "" : parts[0]);
  if (place.manager != Manager::systemd) throw Error("--systemd-cgroup: " + place.reason).with_hint(place.hint);
  Leaf leaf;
  leaf.scope = parts.empty() ? scope_name(id) : fmt::format("{}-{}.scope", parts[1], parts[2]);
  leaf.holder = sys::clone_child(0, [] {
    for (;;) ::pause();
    return 0;
  });
  sys::Systemd systemd = sys::Systemd::connect();
  systemd.request_scope({leaf.scope, slice_of(place), "kelp container " + id, {leaf.holder->pid}});
  if (!systemd.wait_scope()) throw_error("systemd has a unit {} already", leaf.scope);
  const std::string scope = group_of(leaf.holder->pid);
  make_group(scope + "/holder");
  move_into(scope + "/holder", leaf.holder->pid);
  leaf.path = scope + "/container";
  leaf.made = make_group(leaf.path);
  leaf.fd = open_group(leaf.path);
  return leaf;
}

}  // namespace

void move_by_systemd(const std::string& scope, const std::string& path, pid_t pid) {
  const size_t unit = scope.empty() ? std::string::npos : path.find("/" + scope + "/");
  if (unit == std::string::npos)
    throw Error(fmt::format("enter the group {}: Permission denied: {}, where we are, is not delegated to this user",
                            path, group_of(0)))
        .with_hint("put `systemd-run --user --scope` in front of the command");
  step("enter the scope",
       [&] { sys::Systemd::connect().attach_processes(scope, path.substr(unit + 1 + scope.size()), {pid}); });
}

Leaf make_leaf(const std::string& cgroups_path, const std::string& id, const spec::Resources& resources, bool systemd) {
  const std::vector<LimitWrite> writes = plan_limits(resources);
  const bool limited = asks_for_limits(resources);
  NoGroup why;
  Leaf leaf = systemd ? make_scope_leaf(cgroups_path, id) : make_directory_leaf(cgroups_path, id, limited, why);
  if (leaf.path.empty()) {
    if (limited) refuse_limits(writes, why);
    log::debug("no cgroup for the container: {}", why.reason);
    return leaf;
  }
  try {
    write_limits(leaf.path, writes);
    restrict_devices(leaf.path, resources.devices);
  } catch (...) {
    if (leaf.made) remove_tree(leaf.path, 100);
    throw;
  }
  return leaf;
}

}  // namespace kelp::cgroup
