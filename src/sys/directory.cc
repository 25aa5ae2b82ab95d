#include "sys/directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string_view>

#include "base/error.h"
#include "base/owned.h"

namespace kelp::sys {

std::vector<std::string> names_in(const std::string& path, bool hidden) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), ::closedir);
  if (!directory) {
    if (errno == ENOENT || errno == ENOTDIR) return names;
    throw_errno("list {}", path);
  }
  while (const dirent* entry = ::readdir(directory.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != ".." && (hidden || name.front() != '.')) names.emplace_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

void sync_directory(const std::string& path) {
  const Fd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory && errno == ENOENT) return;
  if (!directory || ::fsync(directory.get()) < 0) throw_errno("sync the directory {}", path);
}

}  // namespace kelp::sys
