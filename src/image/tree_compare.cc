#include "image/tree_compare.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "base/error.h"
#include "base/owned.h"
#include "base/text.h"

namespace kelp::image {

namespace {

constexpr size_t kBuffer = 128 * 1024;
constexpr unsigned kMaxDepth = 4000;

std::vector<std::string> names_in(int fd) {
  const int copy = ::openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(copy < 0 ? nullptr : ::fdopendir(copy), ::closedir);
  if (!stream) throw_errno("read a directory");
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(stream.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::map<std::string, std::string> xattrs_of(int parent, const std::string& name) {
  std::map<std::string, std::string> result;
  const std::string path = fmt::format("/proc/self/fd/{}/{}", parent, name);
  std::string list(64 * 1024, '\0');
  const ssize_t length = ::llistxattr(path.c_str(), list.data(), list.size());
  if (length <= 0) return result;
  list.resize(static_cast<size_t>(length));
  for (const std::string& key : split(list, '\0')) {
    if (key.empty() || key == "security.selinux") continue;
    std::string value(64 * 1024, '\0');
    const ssize_t size = ::lgetxattr(path.c_str(), key.c_str(), value.data(), value.size());
    if (size < 0) continue;
    value.resize(static_cast<size_t>(size));
    result[key] = std::move(value);
  }
  return result;
}

std::string link_target(int parent, const std::string& name) {
  std::string target(4096, '\0');
  const ssize_t length = ::readlinkat(parent, name.c_str(), target.data(), target.size());
  if (length < 0) throw_errno("read the link {}", quoted(name));
  target.resize(static_cast<size_t>(length));
  return target;
}

class Comparer {
 public:
  Comparer() : left_(kBuffer), right_(kBuffer) {}

  std::string directories(int left, int right, const std::string& path, unsigned depth) {
    if (depth > kMaxDepth) throw_error("{}: nested too deeply", quoted(path));
    const std::vector<std::string> mine = names_in(left), theirs = names_in(right);
    for (const std::string& name : mine) {
      const std::string member = path.empty() ? name : path + "/" + name;
      if (!std::binary_search(theirs.begin(), theirs.end(), name)) return quoted(member) + " does not belong there";
      if (std::string found = entries(left, right, name, member, depth); !found.empty()) return found;
    }
    for (const std::string& name : theirs) {
      if (std::binary_search(mine.begin(), mine.end(), name)) continue;
      return quoted(path.empty() ? name : path + "/" + name) + " is missing";
    }
    return "";
  }

 private:
  std::string entries(int left, int right, const std::string& name, const std::string& path, unsigned depth) {
    struct stat a {
    }, b{};
    if (::fstatat(left, name.c_str(), &a, AT_SYMLINK_NOFOLLOW) < 0 ||
        ::fstatat(right, name.c_str(), &b, AT_SYMLINK_NOFOLLOW) < 0) {
      throw_errno("inspect {}", quoted(path));
    }
    const auto differs = [&](const char* in) { return fmt::format("{} has another {}", quoted(path), in); };
    if ((a.st_mode & static_cast<mode_t>(S_IFMT)) != (b.st_mode & static_cast<mode_t>(S_IFMT))) return differs("type");
    if (a.st_mode != b.st_mode) return differs("mode");
    if (a.st_uid != b.st_uid || a.st_gid != b.st_gid) return differs("owner");
    if (xattrs_of(left, name) != xattrs_of(right, name)) return differs("set of extended attributes");
    if (S_ISDIR(a.st_mode)) {
      const Fd mine(::openat(left, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      const Fd theirs(::openat(right, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (!mine || !theirs) throw_errno("open {}", quoted(path));
      return directories(mine.get(), theirs.get(), path, depth + 1);
    }
    if (a.st_nlink != b.st_nlink) return differs("number of links");
    // A device node here is a whiteout, which has no time of its own: it was made when the layer was unpacked.
    if (S_ISCHR(a.st_mode) || S_ISBLK(a.st_mode)) return a.st_rdev == b.st_rdev ? "" : differs("device number");
    if (S_ISLNK(a.st_mode) && link_target(left, name) != link_target(right, name)) return differs("target");
    if (a.st_mtim.tv_sec != b.st_mtim.tv_sec) return differs("time");
    if (!S_ISREG(a.st_mode)) return "";
    if (a.st_size != b.st_size) return differs("size");
    return files(left, right, name, path) ? "" : differs("content");
  }

  bool files(int left, int right, const std::string& name, const std::string& path) {
    const Fd a(::openat(left, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    const Fd b(::openat(right, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    if (!a || !b) throw_errno("open {}", quoted(path));
    const struct stat size = [&] {
      struct stat info {};
      if (::fstat(a.get(), &info) < 0) throw_errno("inspect {}", quoted(path));
      return info;
    }();
    for (off_t at = 0; at < size.st_size;) {
      // Holes of both need no look: a sparse file may say that it has terabytes.
      const off_t mine = ::lseek(a.get(), at, SEEK_DATA), theirs = ::lseek(b.get(), at, SEEK_DATA);
      if (mine < 0 && theirs < 0) return true;
      if (const off_t next = mine < 0 ? theirs : theirs < 0 ? mine : std::min(mine, theirs); next > at) at = next;
      const ssize_t got = ::pread(a.get(), left_.data(), left_.size(), at);
      if (got < 0) throw_errno("read {}", quoted(path));
      if (got == 0) return false;
      if (::pread(b.get(), right_.data(), static_cast<size_t>(got), at) != got) return false;
      if (std::memcmp(left_.data(), right_.data(), static_cast<size_t>(got)) != 0) return false;
      at += got;
    }
    return true;
  }

  std::vector<char> left_, right_;
};

}  // namespace

std::string first_difference(int left_fd, int right_fd) { return Comparer().directories(left_fd, right_fd, "", 0); }

}  // namespace kelp::image
