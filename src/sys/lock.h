#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/owned.h"

namespace kelp::sys {

/// A kernel lock (flock) on a file, made where missing (0600). It ends with the owner: process death frees it.
/// The descriptor is CLOEXEC, but a clone without exec shares the lock: drop it first in such a child (fd()).
/// The file may be unlinked by its holder: a taker checks that what it locked still has the name.
class FileLock {
 public:
  /// Waits. throws SysError naming the path
  static FileLock exclusive(const std::string& path);
  static FileLock shared(const std::string& path);
  /// nullopt: somebody else holds it.
  static std::optional<FileLock> try_exclusive(const std::string& path);
  static std::optional<FileLock> try_shared(const std::string& path);
  /// Locks a directory (or any open file) that exists: waits, or nullopt when held by another.
  static FileLock exclusive_at(int fd);
  static std::optional<FileLock> try_exclusive_at(int fd);

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  void unlock() noexcept { fd_.reset(); }

 private:
  explicit FileLock(Fd fd) noexcept : fd_(std::move(fd)) {}
  static std::optional<FileLock> take(const std::string& path, int operation);
  Fd fd_;
};

enum class Durability { none, fsync };

/// Publishes content under `path`: written beside it under a new name, then renamed over it; readers see the old or
/// the new text, never a part. mode octal; fsync also syncs the directory. throws SysError naming the path.
void replace_file(const std::string& path, std::string_view content, unsigned mode = 0600,
                  Durability durability = Durability::none);
/// The name is that of a draft of replace_file() whose writer lives no more.
bool is_dead_draft(std::string_view name);
/// The same for a file that is written under a lock only: its draft has one name, so that the next writer, who holds
/// the lock, overwrites or removes what a killed one left.
void replace_locked_file(const std::string& path, std::string_view content, unsigned mode = 0600,
                         Durability durability = Durability::none);
struct NewContent {
  std::string path;
  std::string content;
  unsigned mode = 0600;
};
/// replace_locked_file() with fsync for several files, which become visible in this order. `named` are directories
/// whose entries the files speak of: what was renamed into them is on the disk before the first file is seen (one that
/// does not exist is left out). A journal is waited for once before the renames and once after, not twice for each
/// file.
void replace_locked_files(const std::vector<NewContent>& files, const std::vector<std::string>& named = {});
/// Where replace_locked_file() writes before it renames.
std::string locked_draft(const std::string& path);

/// The whole file, at most `max` bytes (Error above). nullopt: it does not exist.
std::optional<std::string> read_small_file(const std::string& path, size_t max = 1U << 20U);
/// The same below an open directory.
std::optional<std::string> read_small_file_at(int dirfd, const char* name, size_t max = 1U << 20U);
/// What is left of an open file, at most `max` bytes; `name` is for messages.
std::string read_rest(int fd, std::string_view name, size_t max = 1U << 20U);
/// Writes all of it; throws SysError naming `name`.
void write_all(int fd, std::string_view content, std::string_view name);

}  // namespace kelp::sys
