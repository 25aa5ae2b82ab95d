#include "sys/xattr_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/owned.h"
#include "base/text.h"
#include "sys/lock.h"

namespace kelp::sys {

namespace {

using Dir = std::unique_ptr<DIR, int (*)(DIR*)>;

/// Reads the entries of a directory without "." and ".."; the list is complete before anything is changed, so that
/// deleting does not disturb readdir.
std::vector<std::pair<std::string, unsigned char>> entries_of(int dirfd) {
  Fd again(::openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!again) throw_errno("open a directory");
  const Dir dir(::fdopendir(again.get()), ::closedir);
  if (!dir) throw_errno("read a directory");
  (void)again.release();
  std::vector<std::pair<std::string, unsigned char>> found;
  errno = 0;
  while (const dirent* entry = ::readdir(dir.get())) {
    if (std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0)
      found.emplace_back(entry->d_name, entry->d_type);
    errno = 0;
  }
  if (errno != 0) throw_errno("read a directory");
  return found;
}

/// Opens a directory for reading; one that its owner may not read is made readable first.
Fd open_directory_forced(int dirfd, const char* name) {
  constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  Fd fd(::openat(dirfd, name, kFlags));
  if (fd || errno != EACCES) return fd;
  // Not fchmodat(): it follows links, and the name may have become one.
  const Fd path(::openat(dirfd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!path) return Fd();
  if (::chmod(("/proc/self/fd/" + std::to_string(path.get())).c_str(), 0700) < 0) return Fd();
  return Fd(::openat(dirfd, name, kFlags));
}

void remember(int errnum, const char* name, int& first_error, std::string& first_name) {
  if (first_error != 0) return;
  first_error = errnum;
  first_name = name;
}

void remove_below(int dirfd, const char* name, bool maybe_file, int& first_error, std::string& first_name) {
  if (maybe_file) {
    if (::unlinkat(dirfd, name, 0) == 0 || errno == ENOENT) return;
    if (errno != EISDIR && errno != EPERM) {
      remember(errno, name, first_error, first_name);
      return;
    }
  }
  if (::unlinkat(dirfd, name, AT_REMOVEDIR) == 0 || errno == ENOENT) return;
  if (errno == ENOTDIR && ::unlinkat(dirfd, name, 0) == 0) return;
  if (errno == EBUSY) {  // a mount point: what is mounted there belongs to somebody else
    remember(errno, name, first_error, first_name);
    return;
  }
  {
    const Fd dir = open_directory_forced(dirfd, name);
    if (!dir) {
      if (errno != ENOENT) remember(errno, name, first_error, first_name);
      return;
    }
    struct stat info {};
    if (::fstat(dir.get(), &info) == 0 && (info.st_mode & S_IRWXU) != S_IRWXU) ::fchmod(dir.get(), 0700);
    for (const auto& [entry, type] : entries_of(dir.get()))
      remove_below(dir.get(), entry.c_str(), type != DT_DIR, first_error, first_name);
  }
  if (::unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT) remember(errno, name, first_error, first_name);
}

std::string fd_path(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

bool skipped_xattr(std::string_view name) {
  return starts_with(name, "user.overlay.") || starts_with(name, "trusted.") || name == "security.selinux" ||
         starts_with(name, "system.nfs4");
}

/// Of links, fifos and devices, which cannot be opened: by path, through the directory's descriptor.
void copy_xattrs(const std::string& from, const std::string& to) {
  const ssize_t size = ::llistxattr(from.c_str(), nullptr, 0);
  if (size <= 0) return;  // none, or a file system without them
  std::string names(static_cast<size_t>(size), '\0');
  const ssize_t got = ::llistxattr(from.c_str(), names.data(), names.size());
  if (got < 0) return;
  names.resize(static_cast<size_t>(got));
  for (const std::string& name : split(names, '\0')) {
    if (name.empty() || skipped_xattr(name)) continue;
    const ssize_t length = ::lgetxattr(from.c_str(), name.c_str(), nullptr, 0);
    if (length < 0) continue;
    std::string value(static_cast<size_t>(length), '\0');
    if (::lgetxattr(from.c_str(), name.c_str(), value.data(), value.size()) != length) continue;
    if (::lsetxattr(to.c_str(), name.c_str(), value.data(), value.size(), 0) < 0 && errno != ENOTSUP && errno != EPERM)
      throw_errno("set attribute {}", name);
  }
}

void copy_range(int from, int to, off_t offset, off_t end) {
  off_t in = offset;
  off_t out = offset;
  while (in < end) {
    const ssize_t done = ::copy_file_range(from, &in, to, &out, static_cast<size_t>(end - in), 0);
    if (done > 0) continue;
    if (done == 0) return;
    if (errno == EINTR) continue;
    if (errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS && errno != EPERM)
      throw_errno("copy file data");
    break;
  }
  std::vector<char> buffer(in < end ? 256 * 1024 : 0);
  while (in < end) {
    const size_t want = std::min(buffer.size(), static_cast<size_t>(end - in));
    const ssize_t got = ::pread(from, buffer.data(), want, in);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno("read file data");
    if (got == 0) return;
    for (ssize_t at = 0; at < got;) {
      const ssize_t put = ::pwrite(to, buffer.data() + at, static_cast<size_t>(got - at), in + at);
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) throw_errno("write file data");
      at += put;
    }
    in += got;
  }
}

void copy_data(int from, int to, off_t size) {
  if (::ioctl(to, FICLONE, from) == 0) return;
  if (::ftruncate(to, size) < 0) throw_errno("set file size");
  off_t at = 0;
  while (at < size) {
    const off_t data = ::lseek(from, at, SEEK_DATA);
    if (data < 0) {
      if (errno == ENXIO) return;  // only a hole is left
      return copy_range(from, to, at, size);
    }
    off_t hole = ::lseek(from, data, SEEK_HOLE);
    if (hole < 0 || hole > size) hole = size;
    copy_range(from, to, data, hole);
    at = hole;
  }
}

class TreeCopier {
 public:
  explicit TreeCopier(const CopyOptions& options) : options_(options) {}

  void contents(int from, int to) {
    for (const auto& [name, type] : entries_of(from)) {
      (void)type;
      entry(from, name.c_str(), to, name.c_str());
    }
  }

  void entry(int from_dir, const char* name, int to_dir, const char* to_name) try {
    struct stat info {};
    if (::fstatat(from_dir, name, &info, AT_SYMLINK_NOFOLLOW) < 0) {
      if (errno == ENOENT) return;  // gone meanwhile: a live tree
      throw_errno("stat");
    }
    if (S_ISSOCK(info.st_mode)) return;
    if (!S_ISDIR(info.st_mode) && link_again(info, to_dir, to_name)) return;
    switch (info.st_mode & S_IFMT) {
      case S_IFDIR:
        directory(from_dir, name, to_dir, to_name, info);
        return;
      case S_IFREG:
        file(from_dir, name, to_dir, to_name, info);
        break;
      case S_IFLNK:
        symlink(from_dir, name, to_dir, to_name);
        break;
      default:
        make_room(to_dir, to_name);
        if (::mknodat(to_dir, to_name, info.st_mode, info.st_rdev) < 0) throw_errno("make device node");
    }
    if (!S_ISREG(info.st_mode)) attributes_of_special(from_dir, name, to_dir, to_name, info);
    if (info.st_nlink > 1) remember_link(info, to_dir, to_name);
  } catch (Error& error) {
    error.add_context(std::string("copy ") + printable(name));
    throw;
  }

  void attributes(int from, int to, const struct stat& info) const {
    const auto [uid, gid] = owner_of(info);
    if (uid != static_cast<uid_t>(-1) && ::fchown(to, uid, gid) < 0) throw_errno("change owner to {}:{}", uid, gid);
    if (options_.xattrs) file_xattrs(from, to);
    if (::fchmod(to, info.st_mode & 07777) < 0) throw_errno("change mode");  // after chown, which clears set-id bits
    if (options_.times) {
      const timespec times[2] = {info.st_atim, info.st_mtim};
      ::futimens(to, times);
    }
  }

 private:
  [[nodiscard]] std::pair<uid_t, gid_t> owner_of(const struct stat& info) const {
    if (!options_.owners && !options_.uid && !options_.gid) return {static_cast<uid_t>(-1), static_cast<gid_t>(-1)};
    uid_t uid = options_.map_uid ? options_.map_uid(info.st_uid) : info.st_uid;
    gid_t gid = options_.map_gid ? options_.map_gid(info.st_gid) : info.st_gid;
    return {options_.uid.value_or(uid), options_.gid.value_or(gid)};
  }

  static void make_room(int to_dir, const char* to_name) {
    if (::unlinkat(to_dir, to_name, 0) < 0 && errno == EISDIR) remove_tree_at(to_dir, to_name);
  }

  bool link_again(const struct stat& info, int to_dir, const char* to_name) {
    const auto known = info.st_nlink > 1 ? links_.find({info.st_dev, info.st_ino}) : links_.end();
    if (known == links_.end()) return false;
    make_room(to_dir, to_name);
    return ::linkat(AT_FDCWD, fd_path(known->second.get()).c_str(), to_dir, to_name, AT_SYMLINK_FOLLOW) == 0;
  }

  // A descriptor per file of several links: few in practice. Where they run out the rest become copies.
  void remember_link(const struct stat& info, int to_dir, const char* to_name) {
    Fd fd(::openat(to_dir, to_name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (fd) links_.emplace(std::pair(info.st_dev, info.st_ino), std::move(fd));
  }

  void directory(int from_dir, const char* name, int to_dir, const char* to_name, const struct stat& info) {
    const Fd from(::openat(from_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!from) throw_errno("open directory");
    if (::mkdirat(to_dir, to_name, 0700) < 0) {
      if (errno != EEXIST) throw_errno("make directory");
      struct stat old {};
      if (::fstatat(to_dir, to_name, &old, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(old.st_mode)) {
        make_room(to_dir, to_name);
        if (::mkdirat(to_dir, to_name, 0700) < 0) throw_errno("make directory");
      }
    }
    const Fd to(::openat(to_dir, to_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!to) throw_errno("open new directory");
    contents(from.get(), to.get());
    attributes(from.get(), to.get(), info);
  }

  void file(int from_dir, const char* name, int to_dir, const char* to_name, const struct stat& info) {
    const Fd from(::openat(from_dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    if (!from) throw_errno("open file");
    make_room(to_dir, to_name);
    const Fd to(::openat(to_dir, to_name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!to) throw_errno("create file");
    copy_data(from.get(), to.get(), info.st_size);
    const auto [uid, gid] = owner_of(info);
    if (uid != static_cast<uid_t>(-1) && ::fchown(to.get(), uid, gid) < 0)
      throw_errno("change owner to {}:{}", uid, gid);
    if (options_.xattrs) file_xattrs(from.get(), to.get());
    if (::fchmod(to.get(), info.st_mode & 07777) < 0) throw_errno("change mode");
    if (options_.times) {
      const timespec times[2] = {info.st_atim, info.st_mtim};
      ::futimens(to.get(), times);
    }
    if (info.st_nlink > 1) remember_link(info, to_dir, to_name);
  }

  static void file_xattrs(int from, int to) {
    const ssize_t size = ::flistxattr(from, nullptr, 0);
    if (size <= 0) return;
    std::string names(static_cast<size_t>(size), '\0');
    const ssize_t got = ::flistxattr(from, names.data(), names.size());
    if (got < 0) return;
    names.resize(static_cast<size_t>(got));
    for (const std::string& name : split(names, '\0')) {
      if (name.empty() || skipped_xattr(name)) continue;
      const ssize_t length = ::fgetxattr(from, name.c_str(), nullptr, 0);
      if (length < 0) continue;
      std::string value(static_cast<size_t>(length), '\0');
      if (::fgetxattr(from, name.c_str(), value.data(), value.size()) != length) continue;
      if (::fsetxattr(to, name.c_str(), value.data(), value.size(), 0) < 0 && errno != ENOTSUP && errno != EPERM)
        throw_errno("set attribute {}", name);
    }
  }

  static void symlink(int from_dir, const char* name, int to_dir, const char* to_name) {
    std::string target(4096, '\0');
    const ssize_t length = ::readlinkat(from_dir, name, target.data(), target.size());
    if (length < 0) throw_errno("read link");
    target.resize(static_cast<size_t>(length));
    make_room(to_dir, to_name);
    if (::symlinkat(target.c_str(), to_dir, to_name) < 0) throw_errno("make link");
  }

  void attributes_of_special(int from_dir, const char* name, int to_dir, const char* to_name,
                             const struct stat& info) const {
    const auto [uid, gid] = owner_of(info);
    if (uid != static_cast<uid_t>(-1) && ::fchownat(to_dir, to_name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
      throw_errno("change owner to {}:{}", uid, gid);
    if (options_.xattrs) copy_xattrs(fd_path(from_dir) + "/" + name, fd_path(to_dir) + "/" + to_name);
    if (!S_ISLNK(info.st_mode) && ::fchmodat(to_dir, to_name, info.st_mode & 07777, 0) < 0) throw_errno("change mode");
    if (options_.times) {
      const timespec times[2] = {info.st_atim, info.st_mtim};
      ::utimensat(to_dir, to_name, times, AT_SYMLINK_NOFOLLOW);
    }
  }

  const CopyOptions& options_;
  std::map<std::pair<dev_t, ino_t>, Fd> links_;
};

void chown_below(int dirfd, const char* name, uid_t uid, gid_t gid) {
  struct stat info {};
  if (::fstatat(dirfd, name, &info, AT_SYMLINK_NOFOLLOW) < 0) {
    if (errno == ENOENT) return;
    throw_errno("stat {}", printable(name));
  }
  if (S_ISDIR(info.st_mode)) {
    const Fd dir(::openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!dir) throw_errno("open directory {}", printable(name));
    for (const auto& [entry, type] : entries_of(dir.get())) chown_below(dir.get(), entry.c_str(), uid, gid);
  }
  if (info.st_uid == uid && info.st_gid == gid) return;
  if (::fchownat(dirfd, name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0) throw_errno("change owner of {}", printable(name));
  // chown cleared set-id bits; the caller asked for another owner, not for another mode.
  if (S_ISREG(info.st_mode) && (info.st_mode & (S_ISUID | S_ISGID)) != 0)
    if (::fchmodat(dirfd, name, info.st_mode & 07777, 0) < 0) throw_errno("change mode of {}", printable(name));
}

/// path: of the entry, through the descriptor of its directory.
void set_xattr_below(const std::string& path, const char* attribute, const std::string& value) {
  char now[256];
  const ssize_t size = ::lgetxattr(path.c_str(), attribute, now, sizeof now);
  // SELinux gives its labels back with a NUL at the end.
  const bool same = size >= 0 && std::string_view(now, ::strnlen(now, static_cast<size_t>(size))) == value;
  if (!same && ::lsetxattr(path.c_str(), attribute, value.data(), value.size(), 0) < 0)
    throw_errno("set {} of {}", attribute, printable(path));
  const Fd dir(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!dir) return;
  for (const auto& [name, type] : entries_of(dir.get()))
    set_xattr_below(fd_path(dir.get()) + "/" + name, attribute, value);
}

void measure(int dirfd, TreeSize& size, std::map<std::pair<dev_t, ino_t>, bool>& seen) {
  for (const auto& [name, type] : entries_of(dirfd)) {
    struct stat info {};
    if (::fstatat(dirfd, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) < 0) continue;
    if (!S_ISDIR(info.st_mode) && info.st_nlink > 1 && !seen.emplace(std::pair(info.st_dev, info.st_ino), true).second)
      continue;
    ++size.entries;
    if (S_ISREG(info.st_mode)) size.bytes += static_cast<std::uint64_t>(info.st_size);
    if (!S_ISDIR(info.st_mode)) continue;
    const Fd dir(::openat(dirfd, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (dir) measure(dir.get(), size, seen);
  }
}

}  // namespace

void remove_tree_at(int dirfd, const char* name) {
  int first_error = 0;
  std::string first_name;
  remove_below(dirfd, name, true, first_error, first_name);
  if (first_error != 0)
    throw SysError(fmt::format("remove {}: {}", printable(name), printable(first_name)), first_error);
}

void remove_tree(const std::string& path) { remove_tree_at(AT_FDCWD, path.c_str()); }

namespace {
bool is_empty_file(const struct stat& info) { return S_ISREG(info.st_mode) && info.st_size == 0; }
bool is_marked(const std::string& path) { return ::getxattr(path.c_str(), "user.overlay.whiteout", nullptr, 0) >= 0; }
}  // namespace

bool is_whiteout_at(int dirfd, const char* name) {
  struct stat info {};
  if (::fstatat(dirfd, name, &info, AT_SYMLINK_NOFOLLOW) < 0) return false;
  if (S_ISCHR(info.st_mode)) return info.st_rdev == 0;
  return is_empty_file(info) && is_marked(fd_path(dirfd) + "/" + name);
}

bool is_whiteout(int fd) {
  struct stat info {};
  if (::fstat(fd, &info) < 0) return false;
  if (S_ISCHR(info.st_mode)) return info.st_rdev == 0;
  return is_empty_file(info) && is_marked(fd_path(fd));
}

void make_whiteout_at(int dirfd, const char* name) {
  if (::mknodat(dirfd, name, S_IFCHR, makedev(0, 0)) == 0) return;
  if (errno != EPERM) throw_errno("make whiteout {}", printable(name));
  // An overlay takes no device 0:0 into itself. The other form is an empty file with a mark, in a directory with a
  // mark.
  const Fd file(::openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file || ::fsetxattr(file.get(), "user.overlay.whiteout", "y", 1, 0) < 0)
    throw_errno("make whiteout {}", printable(name));
  if (!is_opaque(dirfd))
    ::setxattr(fd_path(dirfd).c_str(), "user.overlay.opaque", "x", 1, 0);  // for kernels from 6.7 on
}

bool is_opaque(int dirfd) {
  char value = 0;
  const Fd readable(::openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!readable) return false;
  if (::fgetxattr(readable.get(), "user.overlay.opaque", &value, 1) == 1) return value == 'y';
  return errno == EOPNOTSUPP && ::faccessat(readable.get(), kOpaqueFile, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

void make_opaque(int dirfd) {
  if (::fsetxattr(dirfd, "user.overlay.opaque", "y", 1, 0) == 0) return;
  if (errno != EOPNOTSUPP) throw_errno("mark a directory opaque");
  const Fd file(::openat(dirfd, kOpaqueFile, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) throw_errno("mark a directory opaque");
}

void copy_tree(int from_dirfd, int to_dirfd, const CopyOptions& options) {
  TreeCopier(options).contents(from_dirfd, to_dirfd);
}

void copy_entry(int from_dirfd, const char* name, int to_dirfd, const char* to_name, const CopyOptions& options) {
  TreeCopier(options).entry(from_dirfd, name, to_dirfd, to_name);
}

void copy_attributes(int from_fd, int to_fd, const CopyOptions& options) {
  struct stat info {};
  if (::fstat(from_fd, &info) < 0) throw_errno("stat");
  TreeCopier(options).attributes(from_fd, to_fd, info);
}

void set_xattr_of_tree(const std::string& path, const char* attribute, const std::string& value) {
  set_xattr_below(path, attribute, value);
}

void chown_tree_at(int dirfd, const char* name, uid_t uid, gid_t gid) { chown_below(dirfd, name, uid, gid); }

TreeSize tree_size(const std::string& path) {
  TreeSize size;
  std::map<std::pair<dev_t, ino_t>, bool> seen;
  const Fd dir(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (dir) measure(dir.get(), size, seen);
  return size;
}

}  // namespace kelp::sys
