#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "spec/runtime_config.h"
#include "sys/idmap.h"
#include "sys/mount_api.h"

namespace kelp::runtime {

enum class MountKind {
  bind,     ///< a clone of source
  fresh,    ///< a new instance of fstype
  cgroup,   ///< cgroup2, whatever of "cgroup" and "cgroup2" the configuration says
  remount,  ///< attributes of what is mounted at destination already
};

/// One change of propagation: MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE.
struct Propagation {
  std::uint64_t mode = 0;
  bool recursive = false;
};

/// One entry of `mounts`, with its options sorted by what the kernel wants to do with them.
struct MountOp {
  MountKind kind = MountKind::fresh;
  size_t index = 0;  ///< in config.mounts, for messages
  std::string fstype, source, destination;
  sys::FsOptions data;               ///< file system options; second empty = flag
  std::uint64_t set = 0, clear = 0;  ///< MOUNT_ATTR_* of the mount
  std::uint64_t set_recursive = 0, clear_recursive = 0;
  bool recursive = false;  ///< rbind
  bool copy_up = false;    ///< tmpcopyup
  bool no_follow_source = false;
  std::vector<Propagation> propagation;
  bool idmapped = false, idmap_recursive = false;
  sys::IdRanges uid_map, gid_map;  ///< of an idmapped mount
  std::string userns_path;         ///< of an idmapped mount that takes the map of a user namespace given by path
};

struct MountPlan {
  std::vector<MountOp> ops;
  bool own_dev = true;                        ///< /dev is not bound from the host: default devices and links are made
  std::uint64_t initial_propagation = 0;      ///< for "/" before anything else
  std::vector<Propagation> root_propagation;  ///< for the new root, after the pivot
};

/// Pure. Relative bind sources are made absolute below `bundle_dir`.
/// throws Error "mounts[3].options: …"
MountPlan plan_mounts(const spec::RuntimeConfig& config, const std::string& bundle_dir);

/// linux.mountLabel is for this mount: a new instance of a file system whose files have no labels of their own. (Those
/// of proc, sysfs and cgroup2 have, and so has what a bind mount shows.)
bool takes_label(const MountOp& op) noexcept;

/// All words that plan_mounts understands beside file system data, for `features`.
std::vector<std::string> known_mount_options();

}  // namespace kelp::runtime
