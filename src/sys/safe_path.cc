#include "sys/safe_path.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <deque>
#include <vector>

#include "base/error.h"
#include "base/text.h"

namespace kelp::sys {

namespace {

int openat2(int dirfd, const std::string& path, int flags, unsigned mode, std::uint64_t resolve) noexcept {
  struct open_how how {};
  how.flags = static_cast<__u64>(flags | O_CLOEXEC);
  how.mode = (flags & (O_CREAT | __O_TMPFILE)) != 0 ? mode : 0;
  how.resolve = resolve;
  for (;;) {
    const long fd = ::syscall(SYS_openat2, dirfd, path.c_str(), &how, sizeof how);
    // EAGAIN: a rename or mount elsewhere raced with "..": the kernel cannot tell whether it was ours.
    if (fd >= 0 || (errno != EINTR && errno != EAGAIN)) return static_cast<int>(fd);
  }
}

/// Known once: a seccomp profile that predates openat2 answers EPERM, an old kernel ENOSYS.
bool have_openat2() noexcept {
  static const bool have = [] {
    const Fd fd(openat2(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0, RESOLVE_IN_ROOT));
    return fd.valid();
  }();
  return have;
}

std::deque<std::string> parts_of(std::string_view path) {
  std::deque<std::string> parts;
  for (std::string& part : split(path, '/'))
    if (!part.empty() && part != ".") parts.push_back(std::move(part));
  return parts;
}

std::optional<std::string> read_link_of(int fd) {
  std::string target(PATH_MAX, '\0');
  const ssize_t length = ::readlinkat(fd, "", target.data(), target.size());
  if (length < 0) return std::nullopt;
  target.resize(static_cast<size_t>(length));
  return target;
}

Fd fail(int errnum) {
  errno = errnum;
  return Fd();
}

}  // namespace

namespace detail {

// Every directory on the way is held open, so ".." means "the one before", whatever is renamed meanwhile.
Fd walk_in_root(int rootfd, std::string_view path, int flags, unsigned mode) noexcept try {
  std::deque<std::string> todo = parts_of(path);
  const bool wants_directory = !path.empty() && path.back() == '/';
  std::vector<Fd> way;
  way.emplace_back(::openat(rootfd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!way.back()) return Fd();
  int links = 0;
  while (!todo.empty()) {
    const std::string part = std::move(todo.front());
    todo.pop_front();
    if (part == "..") {
      if (way.size() > 1) way.pop_back();
      continue;
    }
    const bool last = todo.empty();
    Fd next(::openat(way.back().get(), part.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    struct stat info {};
    if (!next) {
      if (errno != ENOENT || !last || (flags & O_CREAT) == 0) return Fd();
      return Fd(::openat(way.back().get(), part.c_str(), flags | O_NOFOLLOW | O_CLOEXEC, mode));
    }
    if (::fstat(next.get(), &info) < 0) return Fd();
    if (S_ISLNK(info.st_mode) && !(last && (flags & O_NOFOLLOW) != 0)) {
      if (++links > 40) return fail(ELOOP);
      if ((flags & O_CREAT) != 0 && (flags & O_EXCL) != 0 && last) return fail(EEXIST);
      const auto target = read_link_of(next.get());
      if (!target) return Fd();
      if (starts_with(*target, "/")) way.resize(1);
      std::deque<std::string> more = parts_of(*target);
      todo.insert(todo.begin(), more.begin(), more.end());
      continue;
    }
    if (!last) {
      if (!S_ISDIR(info.st_mode)) return fail(ENOTDIR);
      way.push_back(std::move(next));
      continue;
    }
    const int final_flags = flags | O_NOFOLLOW | O_CLOEXEC | (wants_directory ? O_DIRECTORY : 0);
    return Fd(::openat(way.back().get(), part.c_str(), final_flags, mode));
  }
  return Fd(::openat(way.back().get(), ".", (flags & ~(O_CREAT | O_EXCL)) | O_CLOEXEC));
} catch (...) {
  return fail(ENOMEM);
}

}  // namespace detail

Fd try_open_in_root(int rootfd, std::string_view path, int flags, unsigned mode) noexcept {
  if (path.find('\0') != std::string_view::npos) return fail(EINVAL);
  if (path.empty()) return fail(ENOENT);
  if (!have_openat2()) return detail::walk_in_root(rootfd, path, flags, mode);
  return Fd(openat2(rootfd, std::string(path), flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS));
}

Fd open_in_root(int rootfd, std::string_view path, int flags, unsigned mode) {
  Fd fd = try_open_in_root(rootfd, path, flags, mode);
  if (!fd) throw_errno("open {} inside the root", printable(path));
  return fd;
}

Fd open_beneath(int dirfd, std::string_view path, int flags, unsigned mode) {
  if (path.find('\0') != std::string_view::npos) throw_error("path with a NUL byte: {}", quoted(path));
  if (have_openat2()) {
    Fd fd(openat2(dirfd, std::string(path), flags, mode, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS));
    if (!fd) throw_errno("open {}", printable(path));
    return fd;
  }
  if (starts_with(path, "/")) throw SysError("open " + printable(path), EXDEV);
  std::deque<std::string> todo = parts_of(path);
  Fd at(::openat(dirfd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  while (at && !todo.empty()) {
    const std::string part = std::move(todo.front());
    todo.pop_front();
    if (part == "..") throw SysError("open " + printable(path), EXDEV);
    const int how = todo.empty() ? flags : O_PATH | O_DIRECTORY;
    at = Fd(::openat(at.get(), part.c_str(), how | O_NOFOLLOW | O_CLOEXEC, mode));
  }
  if (!at) throw_errno("open {}", printable(path));
  return at;
}

Fd mkdirs_in_root(int rootfd, std::string_view path, unsigned mode, uid_t uid, gid_t gid) {
  constexpr int kDirectory = O_RDONLY | O_DIRECTORY;
  if (Fd there = try_open_in_root(rootfd, path, kDirectory)) return there;
  if (errno != ENOENT) throw_errno("open {} inside the root", printable(path));
  // Links are resolved by opening each prefix; only what is missing is made, in the directory that was really opened.
  Fd at = open_in_root(rootfd, "/", kDirectory);
  std::string prefix;
  for (const std::string& part : parts_of(path)) {
    prefix += "/" + part;
    Fd next = try_open_in_root(rootfd, prefix, kDirectory);
    if (!next) {
      if (errno != ENOENT) throw_errno("open {} inside the root", printable(prefix));
      if (part == "..") throw SysError("open " + printable(prefix), ENOENT);
      if (::mkdirat(at.get(), part.c_str(), mode) < 0 && errno != EEXIST)
        throw_errno("make directory {} inside the root", printable(prefix));
      next = Fd(::openat(at.get(), part.c_str(), kDirectory | O_NOFOLLOW | O_CLOEXEC));
      if (!next) throw_errno("open {} inside the root", printable(prefix));
      if ((uid != static_cast<uid_t>(-1) || gid != static_cast<gid_t>(-1)) && ::fchown(next.get(), uid, gid) < 0)
        throw_errno("change owner of {} inside the root", printable(prefix));
      ::fchmod(next.get(), mode);
    }
    at = std::move(next);
  }
  return at;
}

void mkdirs(const std::string& path, unsigned mode) {
  if (::mkdir(path.c_str(), mode) == 0) return;
  if (errno == EEXIST) {
    struct stat info {};
    if (::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) return;
    throw SysError("make directory " + path, ENOTDIR);
  }
  const size_t slash =
      path.find_last_not_of('/') == std::string::npos ? std::string::npos : path.rfind('/', path.find_last_not_of('/'));
  if (errno != ENOENT || slash == std::string::npos || slash == 0) throw_errno("make directory {}", path);
  mkdirs(path.substr(0, slash), mode);
  if (::mkdir(path.c_str(), mode) < 0 && errno != EEXIST) throw_errno("make directory {}", path);
}

std::string clean_path(std::string_view path) {
  const bool absolute = starts_with(path, "/");
  std::vector<std::string> kept;
  for (std::string& part : split(path, '/')) {
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      if (!kept.empty() && kept.back() != "..")
        kept.pop_back();
      else if (!absolute)
        kept.push_back(part);
      continue;
    }
    kept.push_back(std::move(part));
  }
  const std::string text = join(kept, "/");
  if (absolute) return "/" + text;
  return text.empty() ? "." : text;
}

}  // namespace kelp::sys
