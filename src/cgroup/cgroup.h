#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/owned.h"
#include "spec/runtime_config.h"
#include "sys/clone.h"

/// cgroup v2 as an unprivileged user gets it: a systemd user scope, else a directory that was delegated, else nothing.
/// A limit that was asked for and cannot be enforced is an error with controller, reason and mend; a limit that nobody
/// asked for never warns. All paths are those of the file system ("/sys/fs/cgroup/…").
namespace kelp::cgroup {

// ---- what the host allows -------------------------------------------------------------------------------------------

/// Where the v2 hierarchy is mounted: "/sys/fs/cgroup", on hybrid hosts "/sys/fs/cgroup/unified", "" when there is
/// none.
const std::string& v2_mount();
/// Group of a process as a file-system path (v2_mount() + the "0::" line); "" when there is none.
std::string group_of(pid_t pid);  ///< 0 = self

/// manager  systemd: a scope by the user's (or system's) systemd; cgroupfs: directories of our own; none
enum class Manager { none, cgroupfs, systemd };
const char* manager_name(Manager manager) noexcept;

/// How this host lets the caller have cgroups; the answer of probe().
///
/// parent       cgroupfs: the directory in which groups are made; systemd: the manager's slice directory
/// controllers  that a group made there gets ("cpu", "memory", "pids", …)
/// reason, hint why nothing better could be had ("" for systemd): for `info`, `doctor` and errors
struct Place {
  Manager manager = Manager::none;
  std::string parent;
  std::vector<std::string> controllers;
  std::string reason, hint;
};

/// Walks the ladder, systemd scope → own writable group → none, by trying: a child is cloned into a new group.
/// wanted  "" = the ladder, "systemd", "cgroupfs", "disabled"; a named one that cannot be had is an Error
/// parent  --cgroup-parent: a slice name for systemd, a path below v2_mount() for cgroupfs, "" = default
Place probe(std::string_view wanted = "", const std::string& parent = "");

// ---- kelp: a group X per container, in it X/container
// -----------------------------------------------------

/// The group of one container of kelp. Order of use by engine/session:
///
///     ContainerGroup group(place, id);      // cgroupfs: X and X/container are made here; systemd: nothing yet
///     clone the session child
///     group.adopt(child pid);               // systemd: asks for the scope, does not wait
///     … mounts, namespaces …
///     group.wait();                         // systemd: scope is there, leaves made, child moved into X/monitor
///     group.release();                      // the monitor removes it (remove_tree of path())
///
/// The monitor stays in the group where kelp runs, except in a scope, which ends with its last process: a process that
/// leaves a group waits for a grace period of the kernel (6 to 20 ms), and a group with a process in it cannot be
/// removed. Destroyed before release() it removes what it made. With Manager::none everything is a no-op and path() is
/// "".
class ContainerGroup {
 public:
  ContainerGroup();
  ContainerGroup(const Place& place, const std::string& id);
  ~ContainerGroup();
  ContainerGroup(ContainerGroup&&) noexcept;
  ContainerGroup& operator=(ContainerGroup&&) noexcept;

  void adopt(pid_t child);
  void wait();
  void release() noexcept;

  /// X; known before the scope exists (its path is foretold, and checked in wait()).
  [[nodiscard]] const std::string& path() const noexcept;
  /// X/container, "" when there is no group.
  [[nodiscard]] std::string container_path() const;
  /// adopt() and wait() are needed: a systemd scope.
  [[nodiscard]] bool comes_later() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// X of a container without making it: what path() of its ContainerGroup will be, "" with Manager::none. For make_spec:
/// linux.cgroupsPath is foretold_path() + "/container" without v2_mount() in front.
std::string foretold_path(const Place& place, const std::string& id);

// ---- kelp-oci: the leaf a configuration asks for
// --------------------------------------------------------------------------

/// The group of a container of the runtime: made by make_leaf, entered by CLONE_INTO_CGROUP with fd.
struct Leaf {
  std::string path;  ///< "" = none: the container stays where its runtime runs
  Fd fd;             ///< O_PATH | O_DIRECTORY
  bool made = false;
  std::string scope;  ///< systemd unit that holds it, "" = none
  /// Keeps a new scope alive until the container is in it; dies with this struct.
  std::optional<sys::Child> holder;
};

/// cgroups_path  linux.cgroupsPath: absolute = below v2_mount(), relative = below our own place,
///               "slice:prefix:name" with systemd, "" = id below our own place
/// Makes the group, enables the controllers that `resources` needs on the way and writes the limits. Where no group can
/// be had: an empty Leaf when `resources` asks for nothing, else an Error. An existing empty directory is taken over
/// (kelp's session has made it), an existing one that holds processes is an Error.
Leaf make_leaf(const std::string& cgroups_path, const std::string& id, const spec::Resources& resources, bool systemd);
/// Opens an existing group for CLONE_INTO_CGROUP (exec).
Fd open_group(const std::string& path);
/// Moves a process of the caller into a group where CLONE_INTO_CGROUP is refused (EACCES): whoever sits outside of the
/// part of the tree that is delegated to him, in the session of an ssh login say, may move nothing into it. systemd
/// may. scope  the unit that holds the group, "" = none: then an Error with the way out
void move_by_systemd(const std::string& scope, const std::string& path, pid_t pid);
/// Writes limits to an existing group (update).
void apply_limits(const std::string& path, const spec::Resources& resources);
/// Weights and protected memory count among siblings, and the siblings of a container's leaf are not the leaves of
/// other containers: X gets them as well. What the kernel does not have was refused, or not, at the leaf.
void share_weights(const std::string& x, const spec::Resources& resources) noexcept;

// ---- acting on a group
// -----------------------------------------------------------------------------------------------------

/// Moves a process. throws SysError.
void move_into(const std::string& path, pid_t pid);
/// All processes of the group and the groups below it.
std::vector<pid_t> processes(const std::string& path);
bool exists(const std::string& path);
/// "populated" of cgroup.events; false when the group is gone.
bool populated(const std::string& path);
/// Freezes or thaws and waits until the kernel says so (at most `timeout_ms`). throws Error on time-out.
void freeze(const std::string& path, bool frozen, int timeout_ms = 10000);
/// State of cgroup.freeze; false when the group is gone.
bool frozen(const std::string& path);
/// SIGKILL to everything in it, also when frozen: cgroup.kill, or a freeze-and-kill loop on kernels before 5.14.
void kill_all(const std::string& path);
/// Removes the group and the groups below; waits up to `timeout_ms` for the last processes to be gone. false when
/// something still lives in it. A missing group is success.
bool remove_tree(const std::string& path, int timeout_ms = 1000);

}  // namespace kelp::cgroup
