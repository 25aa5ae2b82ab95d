#include "engine/recover.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <string>
#include <vector>

#include "base/digest_name.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "sys/lock.h"
#include "sys/procfs.h"
#include "sys/safe_path.h"

namespace kelp::engine {
namespace {

using Directory = std::unique_ptr<DIR, int (*)(DIR*)>;

/// Id of the container whose lock this monitor holds; "" = none of this store.
std::string container_of(const store::Layout& layout, const std::string& proc) {
  const Directory dir(::opendir((proc + "/fd").c_str()), ::closedir);
  if (!dir) return "";
  const std::string locks = layout.locks() + "/";
  while (const dirent* entry = ::readdir(dir.get())) {
    char target[4096];
    const ssize_t count = ::readlinkat(::dirfd(dir.get()), entry->d_name, target, sizeof target);
    if (count <= 0) continue;
    const std::string_view path(target, static_cast<size_t>(count));
    if (starts_with(path, locks) && is_full_id(path.substr(locks.size())))
      return std::string(path.substr(locks.size()));
  }
  return "";
}

}  // namespace

void recover_run_directory(const store::Layout& layout) noexcept try {
  std::vector<std::string> asked;
  const Directory proc(::opendir("/proc"), ::closedir);
  while (const dirent* entry = proc ? ::readdir(proc.get()) : nullptr) {
    const auto pid = to_int(entry->d_name, 1);
    if (!pid) continue;
    const std::string path = std::string("/proc/") + entry->d_name;
    struct stat info {};
    if (::stat(path.c_str(), &info) < 0 || info.st_uid != ::geteuid()) continue;
    if (trim(sys::read_small_file(path + "/comm").value_or("")) != "kelp-monitor") continue;
    const std::string id = container_of(layout, path);
    if (id.empty() || ::access((layout.run_of(id) + "/state.json").c_str(), F_OK) == 0) continue;
    log::debug("ask monitor {} of container {} to publish its state again", *pid, id);
    if (::kill(static_cast<pid_t>(*pid), SIGURG) == 0) asked.push_back(id);
  }
  sys::mkdirs(layout.run, 0700);
  for (const std::string& id : asked)
    for (int tries = 0; tries < 400 && ::access((layout.run_of(id) + "/state.json").c_str(), F_OK) < 0; ++tries)
      ::usleep(5000);
} catch (const std::exception& error) {
  log::debug("recover {}: {}", layout.run, error.what());
}

}  // namespace kelp::engine
