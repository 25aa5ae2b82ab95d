#include "runtime/plan_mounts.h"

#include <sys/mount.h>

#include "base/error.h"
#include "base/text.h"
#include "sys/safe_path.h"

#ifndef MOUNT_ATTR_NOSYMFOLLOW
#define MOUNT_ATTR_NOSYMFOLLOW 0x00200000
#endif

namespace kelp::runtime {
namespace {

/// Options that set or clear an attribute of the mount; the same word with an 'r' in front works on the whole tree.
struct AttrOption {
  const char* name;
  std::uint64_t set, clear;
};
constexpr AttrOption kAttrs[] = {
    {"ro", MOUNT_ATTR_RDONLY, 0},
    {"rw", 0, MOUNT_ATTR_RDONLY},
    {"nosuid", MOUNT_ATTR_NOSUID, 0},
    {"suid", 0, MOUNT_ATTR_NOSUID},
    {"nodev", MOUNT_ATTR_NODEV, 0},
    {"dev", 0, MOUNT_ATTR_NODEV},
    {"noexec", MOUNT_ATTR_NOEXEC, 0},
    {"exec", 0, MOUNT_ATTR_NOEXEC},
    {"nodiratime", MOUNT_ATTR_NODIRATIME, 0},
    {"diratime", 0, MOUNT_ATTR_NODIRATIME},
    {"relatime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME},
    {"norelatime", 0, MOUNT_ATTR__ATIME},
    {"noatime", MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME},
    {"atime", 0, MOUNT_ATTR__ATIME},
    {"strictatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME},
    {"nostrictatime", 0, MOUNT_ATTR__ATIME},
    {"nosymfollow", MOUNT_ATTR_NOSYMFOLLOW, 0},
    {"symfollow", 0, MOUNT_ATTR_NOSYMFOLLOW},
};

struct PropagationOption {
  const char* name;
  std::uint64_t mode;
};
constexpr PropagationOption kPropagation[] = {
    {"shared", MS_SHARED}, {"slave", MS_SLAVE}, {"private", MS_PRIVATE}, {"unbindable", MS_UNBINDABLE}};

/// Options of every file system's superblock; a bind mount has none of its own and ignores them, as mount(2) does.
constexpr const char* kSuperFlags[] = {"sync", "dirsync", "lazytime", "mand"};
constexpr const char* kNoOps[] = {"defaults", "async", "nolazytime", "nomand", "loud",   "silent", "noiversion",
                                  "iversion", "acl",   "noacl",      "auto",   "noauto", "user",   "nouser"};

bool parse_attr(std::string_view word, MountOp& op) {
  for (const AttrOption& attr : kAttrs) {
    if (word == attr.name) {
      // A later word wins over an earlier one.
      op.clear = (op.clear | attr.clear) & ~attr.set;
      op.set = (op.set & ~attr.clear) | attr.set;
      if ((attr.clear & MOUNT_ATTR__ATIME) != 0) op.clear |= MOUNT_ATTR__ATIME;
      return true;
    }
  }
  for (const AttrOption& attr : kAttrs) {
    if (word.size() > 1 && word[0] == 'r' && word.substr(1) == attr.name) {
      op.clear_recursive = (op.clear_recursive | attr.clear) & ~attr.set;
      op.set_recursive = (op.set_recursive & ~attr.clear) | attr.set;
      if ((attr.clear & MOUNT_ATTR__ATIME) != 0) op.clear_recursive |= MOUNT_ATTR__ATIME;
      return true;
    }
  }
  return false;
}

bool parse_propagation(std::string_view word, std::vector<Propagation>& out) {
  for (const PropagationOption& option : kPropagation) {
    if (word == option.name) {
      out.push_back({option.mode, false});
      return true;
    }
    if (word.size() > 1 && word[0] == 'r' && word.substr(1) == option.name) {
      out.push_back({option.mode, true});
      return true;
    }
  }
  return false;
}

template <size_t N>
bool among(std::string_view word, const char* const (&list)[N]) {
  for (const char* entry : list)
    if (word == entry) return true;
  return false;
}

void parse_option(const std::string& word, MountOp& op, bool& bind, bool& remount) {
  if (word == "bind" || word == "rbind") {
    bind = true;
    op.recursive = op.recursive || word == "rbind";
  } else if (word == "remount") {
    remount = true;
  } else if (word == "tmpcopyup") {
    op.copy_up = true;
  } else if (word == "idmap" || word == "ridmap") {
    op.idmapped = true;
    op.idmap_recursive = word == "ridmap";
  } else if (word == "copy-symlink" || word == "nofollow") {
    op.no_follow_source = true;
  } else if (parse_attr(word, op) || parse_propagation(word, op.propagation) || among(word, kNoOps) || word.empty()) {
    return;
  } else if (among(word, kSuperFlags)) {
    op.data.emplace_back(word, "");
  } else {
    const size_t equals = word.find('=');
    if (equals == std::string::npos) {
      op.data.emplace_back(word, "");
    } else {
      op.data.emplace_back(word.substr(0, equals), word.substr(equals + 1));
    }
  }
}

/// An idmapped mount without maps of its own takes those of the container's user namespace.
void take_map_of_container(MountOp& op, const spec::RuntimeConfig& config) {
  if (op.kind != MountKind::bind) throw_error("mounts[{}].options: only bind mounts can be idmapped", op.index);
  if (!op.uid_map.empty()) return;
  const spec::Namespace* user = config.find_namespace("user");
  if (user == nullptr)
    throw_error("mounts[{}].options: idmap needs uidMappings and gidMappings, or a user namespace to take them from",
                op.index);
  op.userns_path = user->path;
  op.uid_map = config.linux_.uid_mappings;
  op.gid_map = config.linux_.gid_mappings;
}

MountOp plan_one(const spec::Mount& mount, size_t index, const std::string& bundle_dir) {
  MountOp op;
  op.index = index;
  op.fstype = mount.type;
  op.source = mount.source;
  // Older configurations name destinations without the leading slash; they mean the same.
  op.destination = sys::clean_path("/" + mount.destination);
  bool bind = mount.type == "bind";
  bool remount = false;
  for (const std::string& word : mount.options) parse_option(word, op, bind, remount);
  op.uid_map = mount.uid_mappings;
  op.gid_map = mount.gid_mappings;
  if (!op.uid_map.empty() || !op.gid_map.empty()) op.idmapped = true;
  if (remount) {
    op.kind = MountKind::remount;
  } else if (bind) {
    op.kind = MountKind::bind;
    if (op.source.empty()) throw_error("mounts[{}].source: a bind mount needs one", index);
    if (!starts_with(op.source, "/")) op.source = bundle_dir + "/" + op.source;
    op.data.clear();
  } else if (mount.type == "cgroup" || mount.type == "cgroup2") {
    op.kind = MountKind::cgroup;
    op.fstype = "cgroup2";
    op.data.clear();
  } else if (mount.type.empty() || mount.type == "none") {
    throw_error("mounts[{}].type: needed for {} without bind among its options", index, quoted(op.destination));
  }
  if (op.copy_up && op.fstype != "tmpfs") throw_error("mounts[{}].options: tmpcopyup is for tmpfs only", index);
  return op;
}

}  // namespace

MountPlan plan_mounts(const spec::RuntimeConfig& config, const std::string& bundle_dir) {
  MountPlan plan;
  plan.ops.reserve(config.mounts.size());
  for (size_t i = 0; i < config.mounts.size(); ++i) {
    plan.ops.push_back(plan_one(config.mounts[i], i, bundle_dir));
    if (plan.ops.back().idmapped) take_map_of_container(plan.ops.back(), config);
    if (plan.ops.back().kind == MountKind::bind && plan.ops.back().destination == "/dev") plan.own_dev = false;
  }
  // A slave tree: host unmounts still arrive, ours stay here. Private only where asked for, since it pins the host's.
  plan.initial_propagation = MS_SLAVE;
  const std::string& wanted = config.linux_.rootfs_propagation;
  if (!wanted.empty()) {
    if (!parse_propagation(wanted, plan.root_propagation))
      throw_error("linux.rootfsPropagation: {} is no propagation", quoted(wanted));
    if (plan.root_propagation[0].mode == MS_PRIVATE) plan.initial_propagation = MS_PRIVATE;
    if (plan.root_propagation[0].mode == MS_SHARED) plan.initial_propagation = 0;
  }
  return plan;
}

bool takes_label(const MountOp& op) noexcept {
  return op.kind == MountKind::fresh && op.fstype != "proc" && op.fstype != "sysfs";
}

std::vector<std::string> known_mount_options() {
  std::vector<std::string> all = {"bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap"};
  for (const AttrOption& attr : kAttrs) {
    all.emplace_back(attr.name);
    all.push_back(std::string("r") + attr.name);
  }
  for (const PropagationOption& option : kPropagation) {
    all.emplace_back(option.name);
    all.push_back(std::string("r") + option.name);
  }
  for (const char* flag : kSuperFlags) all.emplace_back(flag);
  for (const char* word : kNoOps) all.emplace_back(word);
  return all;
}

}  // namespace kelp::runtime
