#include "engine/diff.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "engine/context.h"
#include "engine/images.h"
#include "engine/prepare.h"
#include "engine/session.h"
#include "engine/user_namespace.h"
#include "engine/users.h"
#include "store/images.h"
#include "store/layers.h"
#include "sys/safe_path.h"
#include "sys/xattr_tree.h"

namespace kelp::engine {
namespace {

std::vector<std::string> names_in(int fd) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::fdopendir(::openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)),
                                                ::closedir);
  while (dir) {
    const dirent* entry = ::readdir(dir.get());
    if (entry == nullptr) break;
    if (std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0)
      names.emplace_back(entry->d_name);
  }
  return names;
}

/// One layer against those below it. Runs inside S: directories of others may be closed to the caller.
class LayerDiff {
 public:
  LayerDiff(const LayeredRoot& below, std::set<std::string> ignored) : below_(below), ignored_(std::move(ignored)) {}

  void walk(int fd, const std::string& path, bool below_is_directory) {
    const auto names = names_in(fd);
    const bool opaque = sys::is_opaque(fd);
    if (opaque && below_is_directory) deleted_by_opaque(path, names);
    for (const auto& name : names) {
      const std::string full = path + "/" + name;
      if (ignored_.contains(full)) continue;
      const auto lower = opaque ? std::nullopt : below_.find(full);
      if (sys::is_whiteout_at(fd, name.c_str())) {
        if (below_.find(full)) add('D', full);
        continue;
      }
      struct stat info {};
      if (::fstatat(fd, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) < 0) continue;  // gone meanwhile
      add(lower ? 'C' : 'A', full);
      if (!S_ISDIR(info.st_mode)) continue;
      const Fd deeper(::openat(fd, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
      if (deeper) walk(deeper.get(), full, lower && lower->directory);
    }
  }
  [[nodiscard]] std::string text() const {
    std::string text;
    for (const auto& [path, kind] : found_) (text += kind).append(path).append(1, '\0');
    return text;
  }

 private:
  void add(char kind, const std::string& path) { found_[path] = kind; }
  void deleted_by_opaque(const std::string& path, const std::vector<std::string>& kept) {
    const auto lower = below_.find(path);
    if (!lower || !lower->directory) return;
    for (const auto& name : names_in(lower->fd.get()))
      if (std::find(kept.begin(), kept.end(), name) == kept.end()) add('D', path + "/" + name);
  }

  const LayeredRoot& below_;
  std::set<std::string> ignored_;
  std::map<std::string, char> found_;
};

std::vector<Change> parse_changes(const std::string& text) {
  std::vector<Change> changes;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\0', begin);
    changes.push_back({text[begin], text.substr(begin + 1, end - begin - 1)});
    begin = end + 1;
  }
  return changes;
}

std::vector<Change> diff(Context& context, const std::string& top, const store::Strings& below,
                         const std::set<std::string>& ignored) {
  const std::string text = ask_in_userns(context, [&] {
    const LayeredRoot root(below);
    const Fd fd(::open(top.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd && errno == ENOENT) return std::string();  // never started: nothing changed
    if (!fd) throw_errno("open {}", top);
    LayerDiff walker(root, ignored);
    walker.walk(fd.get(), "", true);
    return walker.text();
  });
  return parse_changes(text);
}

/// Paths of what kelp mounts or makes in a container.
std::set<std::string> not_the_containers(const store::ContainerRecord& record) {
  std::set<std::string> paths{"/dev",           "/proc",         "/sys",       "/run/.containerenv",
                              "/run/secrets",   "/etc/hostname", "/etc/hosts", "/etc/resolv.conf",
                              "/run/kelp-init", "/run/notify"};
  for (const auto& mount : record.config.mounts) paths.insert(sys::clean_path(mount.target));
  return paths;
}

store::IdMapping map_of_images(Context& context) {
  return userns_map_key(context) == "single" ? store::IdMapping::single() : store::IdMapping::full();
}

/// A file system to be compared: its layers, top first, and the map that their owners are under.
struct Tree {
  store::Strings directories;
  store::IdMapping map;
};

Tree tree_of(Context& context, const DiffSide& side) {
  if (side.image) {
    const store::IdMapping map = map_of_images(context);
    ensure_layers(context, *side.image, map);
    return {store::overlay_lowers(context.layout, side.image->chains(), map), map};
  }
  const store::ContainerRecord& record = *side.container;
  const std::string own = context.layout.container(record.id);
  // A host without overlayfs has copied the layers into the upper directory: it is everything by itself.
  if (record.config.rootfs.empty() && ::access((own + "/copied").c_str(), F_OK) == 0)
    return {{own + "/upper"}, layers_map(record)};
  return {root_directories(context, record, true), layers_map(record)};
}

/// The directories that take part in one directory of a stack of layers, top first.
using Parts = std::vector<Fd>;

Parts open_layers(const store::Strings& directories) {
  Parts parts;
  for (const std::string& path : directories) {
    Fd fd(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (fd)
      parts.push_back(std::move(fd));
    else if (errno != ENOENT || path != directories.front())  // a container that was never started has none of its own
      throw_errno("open {}", path);
  }
  return parts;
}

/// What stands under a name in the stack.
struct Node {
  Fd fd;  ///< O_PATH, of the topmost
  struct stat info {};
  Parts parts;  ///< a directory's
};

std::optional<Node> look_up(const Parts& parts, size_t from, const std::string& name, const std::string& path) {
  std::optional<Node> found;
  for (size_t i = from; i < parts.size(); ++i) {
    struct stat info {};
    Fd fd(::openat(parts[i].get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!fd && errno == ENOENT) continue;
    if (!fd || ::fstat(fd.get(), &info) < 0) throw_errno("look at {}", printable(path));
    if (sys::is_whiteout_at(parts[i].get(), name.c_str())) break;
    if (!S_ISDIR(info.st_mode)) {
      if (!found) found.emplace(Node{.fd = std::move(fd), .info = info, .parts = {}});
      break;
    }
    const bool last = sys::is_opaque(fd.get());
    if (!found) found.emplace(Node{.fd = Fd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 3)), .info = info, .parts = {}});
    found->parts.push_back(std::move(fd));
    if (last) break;
  }
  return found;
}

/// Attributes that a file's owner knows of; overlayfs' own are left out, and labels, which each container has its own.
std::map<std::string, std::string> attributes_of(const Node& node) {
  std::map<std::string, std::string> found;
  if (!S_ISREG(node.info.st_mode) && !S_ISDIR(node.info.st_mode)) return found;
  const std::string path = fmt::format("/proc/self/fd/{}", node.fd.get());
  std::string names(64UL * 1024, '\0');  // the kernel's limits, of lists and of values
  const ssize_t length = ::listxattr(path.c_str(), names.data(), names.size());
  if (length <= 0) return found;
  names.resize(static_cast<size_t>(length));
  std::string value(64UL * 1024, '\0');
  for (const auto& name : split(names, '\0')) {
    if (name.empty() || name == "security.selinux" || starts_with(name, "user.overlay.") ||
        starts_with(name, "trusted.overlay."))
      continue;
    const ssize_t size = ::getxattr(path.c_str(), name.c_str(), value.data(), value.size());
    if (size >= 0) found[name] = value.substr(0, static_cast<size_t>(size));
  }
  return found;
}

std::string target_of(const Node& node) {
  char target[PATH_MAX];
  const ssize_t length = ::readlinkat(node.fd.get(), "", target, sizeof target);
  return length < 0 ? std::string() : std::string(target, static_cast<size_t>(length));
}

bool is_same_file(const struct stat& a, const struct stat& b) { return a.st_dev == b.st_dev && a.st_ino == b.st_ino; }

/// Two stacks of layers as one sees them. Runs inside S. What both have in the same layers is not looked into.
class TreeDiff {
 public:
  TreeDiff(const store::IdMapping& newer, const store::IdMapping& older, std::set<std::string> ignored)
      : newer_map_(newer), older_map_(older), ignored_(std::move(ignored)) {}

  /// true: something below differs.
  bool compare(const Parts& newer, const Parts& older, const std::string& path) {
    if (are_same(newer, older)) return false;
    const size_t before = found_.size();
    const auto names = names_of(newer), old_names = names_of(older);
    std::set<std::string> there;
    const Parts nothing;
    for (const auto& [name, first] : names) {
      const std::string full = path + "/" + name;
      if (ignored_.contains(full)) continue;
      const auto mine = look_up(newer, first, name, full);
      if (!mine) continue;
      there.insert(name);
      const auto place = old_names.find(name);
      const auto theirs = place == old_names.end() ? std::nullopt : look_up(older, place->second, name, full);
      const bool below = S_ISDIR(mine->info.st_mode) && compare(mine->parts, theirs ? theirs->parts : nothing, full);
      if (!theirs)
        found_[full] = 'A';
      else if (below || differ(*mine, *theirs))
        found_[full] = 'C';
    }
    for (const auto& [name, first] : old_names) {
      const std::string full = path + "/" + name;
      if (!there.contains(name) && !ignored_.contains(full) && look_up(older, first, name, full)) found_[full] = 'D';
    }
    return found_.size() > before;
  }
  [[nodiscard]] std::string text() const {
    std::string text;
    for (const auto& [path, kind] : found_) (text += kind).append(path).append(1, '\0');
    return text;
  }

 private:
  static bool are_same(const Parts& newer, const Parts& older) {
    return newer.size() == older.size() &&
           std::equal(newer.begin(), newer.end(), older.begin(), [](const Fd& left, const Fd& right) {
             struct stat a {
             }, b{};
             return ::fstat(left.get(), &a) == 0 && ::fstat(right.get(), &b) == 0 && is_same_file(a, b);
           });
  }

  /// With the first of the parts that has the name.
  static std::map<std::string, size_t> names_of(const Parts& parts) {
    std::map<std::string, size_t> names;
    for (size_t i = 0; i < parts.size(); ++i)
      for (auto& name : names_in(parts[i].get())) names.emplace(std::move(name), i);
    return names;
  }

  [[nodiscard]] bool differ(const Node& newer, const Node& older) const {
    const struct stat &a = newer.info, &b = older.info;
    const bool same_owner = newer_map_.container_uid(a.st_uid) == older_map_.container_uid(b.st_uid) &&
                            newer_map_.container_gid(a.st_gid) == older_map_.container_gid(b.st_gid);
    if (!same_owner) return true;
    if (is_same_file(a, b)) return false;
    if (a.st_mode != b.st_mode || a.st_rdev != b.st_rdev) return true;
    if (!S_ISDIR(a.st_mode)) {
      if (a.st_size != b.st_size || a.st_mtim.tv_sec != b.st_mtim.tv_sec) return true;
      // Archives may keep whole seconds only.
      if (a.st_mtim.tv_nsec != b.st_mtim.tv_nsec && a.st_mtim.tv_nsec != 0 && b.st_mtim.tv_nsec != 0) return true;
    }
    if (S_ISLNK(a.st_mode)) return target_of(newer) != target_of(older);
    return attributes_of(newer) != attributes_of(older);
  }

  const store::IdMapping &newer_map_, &older_map_;
  std::set<std::string> ignored_;
  std::map<std::string, char> found_;
};

/// A descriptor for each layer of each directory on the way down, on both sides: more than the usual 1024 can be
/// needed.
void allow_many_descriptors() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

std::vector<Change> diff_container(Context& context, const store::ContainerRecord& record) {
  if (!record.config.rootfs.empty())
    throw_error("container {} runs in a directory (--rootfs): there is nothing to compare it with", record.name);
  return diff(context, context.layout.container(record.id) + "/upper", root_directories(context, record, false),
              not_the_containers(record));
}

std::vector<Change> diff_image(Context& context, const store::ImageRecord& image) {
  const store::IdMapping map = map_of_images(context);
  ensure_layers(context, image, map);
  store::Strings directories = store::overlay_lowers(context.layout, image.chains(), map);
  if (directories.empty()) return {};
  const std::string top = directories.front();
  directories.erase(directories.begin());
  return diff(context, top, directories, {});
}

std::vector<Change> diff_between(Context& context, const DiffSide& newer, const DiffSide& older) {
  std::set<std::string> ignored;
  for (const DiffSide* side : {&newer, &older})
    if (side->container) ignored.merge(not_the_containers(*side->container));
  const Tree mine = tree_of(context, newer), theirs = tree_of(context, older);
  return parse_changes(ask_in_userns(context, [&] {
    allow_many_descriptors();
    TreeDiff trees(mine.map, theirs.map, ignored);
    trees.compare(open_layers(mine.directories), open_layers(theirs.directories), "");
    return trees.text();
  }));
}

}  // namespace kelp::engine
