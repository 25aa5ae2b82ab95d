#include "engine/diff.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "engine/context.h"
#include "engine/images.h"
#include "engine/prepare.h"
#include "engine/session.h"
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
  std::vector<Change> changes;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\0', begin);
    changes.push_back({text[begin], text.substr(begin + 1, end - begin - 1)});
    begin = end + 1;
  }
  return changes;
}

}  // namespace

std::vector<Change> diff_container(Context& context, const store::ContainerRecord& record) {
  if (!record.config.rootfs.empty())
    throw_error("container {} runs in a directory (--rootfs): there is nothing to compare it with", record.name);
  std::set<std::string> ignored{"/dev",           "/proc",         "/sys",       "/run/.containerenv",
                                "/run/secrets",   "/etc/hostname", "/etc/hosts", "/etc/resolv.conf",
                                "/run/kelp-init", "/run/notify"};
  for (const auto& mount : record.config.mounts) ignored.insert(sys::clean_path(mount.target));
  return diff(context, context.layout.container(record.id) + "/upper", root_directories(context, record, false),
              ignored);
}

std::vector<Change> diff_image(Context& context, const store::ImageRecord& image) {
  const store::IdMapping map =
      userns_map_key(context) == "single" ? store::IdMapping::single() : store::IdMapping::full();
  ensure_layers(context, image, map);
  store::Strings directories = store::overlay_lowers(context.layout, image.chains(), map);
  if (directories.empty()) return {};
  const std::string top = directories.front();
  directories.erase(directories.begin());
  return diff(context, top, directories, {});
}

}  // namespace kelp::engine
