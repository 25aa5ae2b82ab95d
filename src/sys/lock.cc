#include "sys/lock.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <limits>
#include <set>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "sys/directory.h"

namespace kelp::sys {

namespace {

bool flock_retry(int fd, int operation) {
  while (::flock(fd, operation) < 0)
    if (errno != EINTR) return false;
  return true;
}

/// The file that was locked still is the one that the name means: a holder may have unlinked it meanwhile.
bool still_named(int fd, const std::string& path) {
  struct stat ours {};
  struct stat named {};
  return ::fstat(fd, &ours) == 0 && ::stat(path.c_str(), &named) == 0 && ours.st_ino == named.st_ino &&
         ours.st_dev == named.st_dev;
}

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

std::optional<FileLock> FileLock::take(const std::string& path, int operation) {
  for (;;) {
    Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd) throw_errno("open lock file {}", path);
    if (!flock_retry(fd.get(), operation)) {
      if (errno == EWOULDBLOCK) return std::nullopt;
      throw_errno("lock {}", path);
    }
    if (still_named(fd.get(), path)) return FileLock(std::move(fd));
  }
}

FileLock FileLock::exclusive(const std::string& path) { return *take(path, LOCK_EX); }
FileLock FileLock::shared(const std::string& path) { return *take(path, LOCK_SH); }
std::optional<FileLock> FileLock::try_exclusive(const std::string& path) { return take(path, LOCK_EX | LOCK_NB); }
std::optional<FileLock> FileLock::try_shared(const std::string& path) { return take(path, LOCK_SH | LOCK_NB); }

namespace {

// A new description: a duplicate would share the caller's lock and end with whichever is closed last.
Fd reopened(int fd) {
  Fd own(::open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_RDONLY | O_CLOEXEC));
  if (!own) throw_errno("reopen descriptor {} for its lock", fd);
  return own;
}

}  // namespace

FileLock FileLock::exclusive_at(int fd) {
  Fd own = reopened(fd);
  if (!flock_retry(own.get(), LOCK_EX)) throw_errno("lock descriptor {}", fd);
  return FileLock(std::move(own));
}

std::optional<FileLock> FileLock::try_exclusive_at(int fd) {
  Fd own = reopened(fd);
  if (!flock_retry(own.get(), LOCK_EX | LOCK_NB)) {
    if (errno == EWOULDBLOCK) return std::nullopt;
    throw_errno("lock descriptor {}", fd);
  }
  return FileLock(std::move(own));
}

void write_all(int fd, std::string_view content, std::string_view name) {
  while (!content.empty()) {
    const ssize_t written = ::write(fd, content.data(), content.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      throw_errno("write {}", name);
    }
    content.remove_prefix(static_cast<size_t>(written));
  }
}

namespace {

/// Writes the draft, whose descriptor is new, and renames it over the path.
void write_and_rename(Fd fd, const std::string& draft, const std::string& path, std::string_view content, unsigned mode,
                      Durability durability) {
  try {
    if (::fchmod(fd.get(), mode) < 0) throw_errno("change mode of {}", draft);  // whatever the umask
    write_all(fd.get(), content, draft);
    if (durability == Durability::fsync && ::fsync(fd.get()) < 0) throw_errno("sync {}", draft);
    fd.reset();
    if (::rename(draft.c_str(), path.c_str()) < 0) throw_errno("rename {} to {}", draft, path);
  } catch (...) {
    ::unlink(draft.c_str());
    throw;
  }
  if (durability == Durability::fsync) {
    const Fd directory(::open(parent_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory || ::fsync(directory.get()) < 0) throw_errno("sync the directory of {}", path);
  }
}

}  // namespace

void replace_file(const std::string& path, std::string_view content, unsigned mode, Durability durability) {
  static std::atomic<unsigned> counter{0};
  const std::string draft = path + ".new-" + std::to_string(::getpid()) + "-" + std::to_string(counter++);
  Fd fd(::open(draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!fd && errno == EEXIST && ::unlink(draft.c_str()) == 0)  // left by a process that had our pid
    fd = Fd(::open(draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!fd) throw_errno("create {}", draft);
  write_and_rename(std::move(fd), draft, path, content, mode, durability);
}

bool is_dead_draft(std::string_view name) {
  const size_t mark = name.rfind(".new-");
  if (mark == std::string_view::npos) return false;
  const std::string_view writer = name.substr(mark + 5);
  const auto pid = to_int(writer.substr(0, writer.find('-')), 1, std::numeric_limits<pid_t>::max());
  return pid && ::kill(static_cast<pid_t>(*pid), 0) < 0 && errno == ESRCH;
}

void replace_locked_file(const std::string& path, std::string_view content, unsigned mode, Durability durability) {
  const std::string draft = locked_draft(path);
  Fd fd(::open(draft.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode));
  if (!fd) throw_errno("create {}", draft);
  write_and_rename(std::move(fd), draft, path, content, mode, durability);
}

void replace_locked_files(const std::vector<NewContent>& files, const std::vector<std::string>& named) {
  std::vector<Fd> drafts;
  try {
    for (const NewContent& file : files) {
      const std::string draft = locked_draft(file.path);
      Fd fd(::open(draft.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, file.mode));
      if (!fd) throw_errno("create {}", draft);
      if (::fchmod(fd.get(), file.mode) < 0) throw_errno("change mode of {}", draft);  // whatever the umask
      write_all(fd.get(), file.content, draft);
      drafts.push_back(std::move(fd));
    }
    // With the blocks of all of them given out, the first fsync commits for the others, too.
    for (const Fd& fd : drafts) ::sync_file_range(fd.get(), 0, 0, SYNC_FILE_RANGE_WRITE);
    for (size_t i = 0; i < drafts.size(); ++i) {
      if (::fsync(drafts[i].get()) < 0) throw_errno("sync {}", locked_draft(files[i].path));
    }
    for (const std::string& directory : named) sync_directory(directory);
    for (const NewContent& file : files) {
      const std::string draft = locked_draft(file.path);
      if (::rename(draft.c_str(), file.path.c_str()) < 0) throw_errno("rename {} to {}", draft, file.path);
    }
  } catch (...) {
    for (const NewContent& file : files) ::unlink(locked_draft(file.path).c_str());
    throw;
  }
  std::set<std::string> parents;
  for (const NewContent& file : files) parents.insert(parent_of(file.path));
  for (const std::string& directory : parents) sync_directory(directory);
}

std::string locked_draft(const std::string& path) { return path + ".new"; }

std::string read_rest(int fd, std::string_view name, size_t max) {
  std::string text;
  struct stat info {};
  size_t step = 4096;
  if (::fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 0)
    step = std::min(max, static_cast<size_t>(info.st_size)) + 1;
  for (;;) {
    const size_t old = text.size();
    text.resize(old + step);
    const ssize_t got = ::read(fd, text.data() + old, step);
    if (got < 0) {
      text.resize(old);
      if (errno == EINTR) continue;
      throw_errno("read {}", name);
    }
    text.resize(old + static_cast<size_t>(got));
    if (text.size() > max) throw_error("read {}: larger than {} bytes", name, max);
    if (got == 0) return text;
    step = 4096;
  }
}

std::optional<std::string> read_small_file(const std::string& path, size_t max) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) {
    if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
    throw_errno("open {}", path);
  }
  return read_rest(fd.get(), path, max);
}

std::optional<std::string> read_small_file_at(int dirfd, const char* name, size_t max) {
  const Fd fd(::openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) {
    if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
    throw_errno("open {}", name);
  }
  return read_rest(fd.get(), name, max);
}

}  // namespace kelp::sys
