#include "image/pack.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "image/tar_writer.h"
#include "sys/lock.h"
#include "sys/xattr_tree.h"

namespace kelp::image {

namespace {

constexpr size_t kBuffer = 256 * 1024;
constexpr size_t kMaxOwners = 256U << 20U;
constexpr unsigned kMaxDepth = 4000;

bool is_packed_xattr(std::string_view name) {
  if (starts_with(name, "user.overlay.")) return false;
  return starts_with(name, "user.") || name == "security.capability" || name == "system.posix_acl_access" ||
         name == "system.posix_acl_default";
}

/// File capabilities without the namespace's root id (version 2), as they stand in archives.
std::string plain_capability(std::string value) {
  constexpr size_t kVersion2 = 20, kVersion3 = 24;
  if (value.size() != kVersion3) return value;
  value.resize(kVersion2);
  value[3] = 2;  // revision, the highest byte of a little-endian word
  return value;
}

class Packer {
 public:
  Packer(Sink& out, const PackOptions& options) : tar_(out), options_(options), buffer_(kBuffer) { read_owners(); }

  PackResult run(int root) {
    directory(root, "", 0);
    tar_.finish();
    if (sockets_ > 0) result_.warnings.push_back(fmt::format("{} sockets were left out", sockets_));
    return std::move(result_);
  }

 private:
  using Owner = std::pair<std::uint64_t, std::uint64_t>;

  void read_owners() {
    for (const std::string& file : options_.owners_files) read_owners(file);
  }

  void read_owners(const std::string& path) {
    const auto text = sys::read_small_file(path, kMaxOwners);
    if (!text) return;
    for (const std::string& record : split(*text, '\0')) {
      const std::vector<std::string> parts = split(record, ' ', 3);
      if (parts.size() != 3) continue;
      const auto uid = to_int(parts[0], 0);
      const auto gid = to_int(parts[1], 0);
      if (uid && gid) owners_[parts[2]] = {static_cast<std::uint64_t>(*uid), static_cast<std::uint64_t>(*gid)};
    }
  }

  static std::vector<std::string> names_in(int fd) {
    const int copy = ::openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const std::unique_ptr<DIR, int (*)(DIR*)> stream(copy < 0 ? nullptr : ::fdopendir(copy), ::closedir);
    if (!stream) throw_errno("read a directory");
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = ::readdir(stream.get())) {
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
    }
    if (errno != 0) throw_errno("read a directory");
    std::sort(names.begin(), names.end());
    return names;
  }

  void directory(int fd, const std::string& path, unsigned depth) {
    if (depth > kMaxDepth) throw_error("{}: nested too deeply", quoted(path));
    for (const std::string& name : names_in(fd)) {
      const std::string member = path.empty() ? name : path + "/" + name;
      try {
        entry(fd, name, member, depth);
      } catch (Error& error) {
        if (!std::exchange(named_, true)) error.add_context("pack " + quoted(member));
        throw;
      }
    }
  }

  void entry(int parent, const std::string& name, const std::string& path, unsigned depth) {
    struct stat info {};
    if (::fstatat(parent, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) < 0) {
      if (errno == ENOENT) return;  // gone meanwhile: the tree may be in use
      throw_errno("inspect it");
    }
    if (options_.overlay && sys::is_whiteout_at(parent, name.c_str())) return whiteout(path, info);
    TarEntry member = describe(path, info);
    if (!S_ISDIR(info.st_mode) && info.st_nlink > 1) {
      const auto [first, fresh] = links_.try_emplace({info.st_dev, info.st_ino}, path);
      if (!fresh) {
        member.type = TarEntry::Type::hard_link;
        member.link = first->second;
        return write(member);
      }
    }
    switch (info.st_mode & static_cast<mode_t>(S_IFMT)) {
      case S_IFDIR:
        return open_directory(parent, name, path, member, depth);
      case S_IFREG:
        return file(parent, name, member, info);
      case S_IFLNK:
        member.type = TarEntry::Type::symlink;
        member.link = read_link(parent, name);
        return write(member);
      case S_IFIFO:
        member.type = TarEntry::Type::fifo;
        return write(member);
      case S_IFCHR:
      case S_IFBLK:
        member.type = S_ISCHR(info.st_mode) ? TarEntry::Type::character : TarEntry::Type::block;
        member.major = major(info.st_rdev);
        member.minor = minor(info.st_rdev);
        return write(member);
      default:
        ++sockets_;
    }
  }

  TarEntry describe(const std::string& path, const struct stat& info) {
    TarEntry member;
    member.name = path;
    member.mode = info.st_mode & 07777U;
    member.mtime = info.st_mtim.tv_sec;
    if (const auto owner = owners_.find(path); owner != owners_.end()) {
      std::tie(member.uid, member.gid) = owner->second;
    } else {
      // An id that the container has not is nobody's there.
      member.uid = options_.map.container_uid(info.st_uid).value_or(65534);
      member.gid = options_.map.container_gid(info.st_gid).value_or(65534);
    }
    return member;
  }

  void whiteout(const std::string& path, const struct stat& info) {
    const size_t slash = path.rfind('/');
    TarEntry member;
    member.name =
        slash == std::string::npos ? ".wh." + path : path.substr(0, slash + 1) + ".wh." + path.substr(slash + 1);
    member.mtime = info.st_mtim.tv_sec;
    write(member);
  }

  void open_directory(int parent, const std::string& name, const std::string& path, TarEntry& member, unsigned depth) {
    const Fd fd(::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd) throw_errno("open it");
    member.type = TarEntry::Type::directory;
    member.xattrs = xattrs_of(fd.get());
    write(member);
    if (options_.overlay && sys::is_opaque(fd.get())) {
      TarEntry mark;
      mark.name = path + "/.wh..wh..opq";
      mark.mtime = member.mtime;
      write(mark);
    }
    directory(fd.get(), path, depth + 1);
  }

  void file(int parent, const std::string& name, TarEntry& member, const struct stat& info) {
    const Fd fd(::openat(parent, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!fd) throw_errno("open it");
    member.size = static_cast<std::uint64_t>(info.st_size);
    member.xattrs = xattrs_of(fd.get());
    write(member);
    std::uint64_t left = member.size;
    while (left > 0) {
      const size_t part = static_cast<size_t>(std::min<std::uint64_t>(left, buffer_.size()));
      const ssize_t got = ::read(fd.get(), buffer_.data(), part);
      if (got < 0) {
        if (errno == EINTR) continue;
        throw_errno("read it");
      }
      if (got == 0) {  // it shrank
        std::memset(buffer_.data(), 0, part);
        tar_.data(buffer_.data(), part);
        left -= part;
        continue;
      }
      tar_.data(buffer_.data(), static_cast<size_t>(got));
      left -= static_cast<std::uint64_t>(got);
    }
  }

  static std::string read_link(int parent, const std::string& name) {
    std::string target(4096, '\0');
    const ssize_t length = ::readlinkat(parent, name.c_str(), target.data(), target.size());
    if (length < 0) throw_errno("read the link");
    target.resize(static_cast<size_t>(length));
    return target;
  }

  static std::map<std::string, std::string> xattrs_of(int fd) {
    std::map<std::string, std::string> result;
    std::string names(64 * 1024, '\0');
    const ssize_t length = ::flistxattr(fd, names.data(), names.size());
    if (length <= 0) return result;
    names.resize(static_cast<size_t>(length));
    for (const std::string& name : split(names, '\0')) {
      if (name.empty() || !is_packed_xattr(name)) continue;
      std::string value(64 * 1024, '\0');
      const ssize_t size = ::fgetxattr(fd, name.c_str(), value.data(), value.size());
      if (size < 0) continue;
      value.resize(static_cast<size_t>(size));
      result[name] = name == "security.capability" ? plain_capability(std::move(value)) : std::move(value);
    }
    return result;
  }

  void write(const TarEntry& member) {
    tar_.member(member);
    ++result_.files;
  }

  TarWriter tar_;
  const PackOptions& options_;
  std::vector<char> buffer_;
  std::map<std::pair<dev_t, ino_t>, std::string> links_;
  std::map<std::string, Owner> owners_;
  PackResult result_;
  std::uint64_t sockets_ = 0;
  bool named_ = false;  ///< the error under way has its path already
};

}  // namespace

PackResult pack_tree(int root_fd, Sink& out, const PackOptions& options) { return Packer(out, options).run(root_fd); }

}  // namespace kelp::image
