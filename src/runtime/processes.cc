#include "runtime/processes.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>

#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "cgroup/cgroup.h"
#include "sys/clone.h"

namespace kelp::runtime {
namespace {

constexpr int kDeathTimeoutMs = 10'000;
constexpr int kDeathPollMs = 20;

ino_t pid_namespace(const char* pid) {
  struct stat info {};
  return ::stat(fmt::format("/proc/{}/ns/pid", pid).c_str(), &info) == 0 ? info.st_ino : 0;
}

std::vector<pid_t> same_pid_namespace(pid_t first) {
  const ino_t wanted = pid_namespace(std::to_string(first).c_str());
  if (wanted == 0) return {};
  if (wanted == pid_namespace("self")) return {first};  // shared with us: cannot be told apart
  std::vector<pid_t> pids;
  DIR* dir = ::opendir("/proc");
  if (dir == nullptr) throw_errno("open /proc");
  while (const dirent* entry = ::readdir(dir)) {
    const auto pid = to_int(entry->d_name, 1);
    if (pid && pid_namespace(entry->d_name) == wanted) pids.push_back(static_cast<pid_t>(*pid));
  }
  ::closedir(dir);
  return pids;
}

bool own_group(const Record& record) { return !record.cgroup.empty() && cgroup::exists(record.cgroup); }

}  // namespace

std::vector<pid_t> processes_of(const Container& container, const Record& record) {
  std::vector<pid_t> pids;
  if (own_group(record)) {
    pids = cgroup::processes(record.cgroup);
  } else if (container.pidfd(record)) {
    pids = same_pid_namespace(record.pid);
  }
  std::sort(pids.begin(), pids.end());
  return pids;
}

void signal_all(const Container& container, const Record& record, int signal) {
  if (signal == SIGKILL && own_group(record)) {
    cgroup::kill_all(record.cgroup);
    return;
  }
  // Frozen meanwhile, so that none forks away under our eyes.
  const bool freeze = own_group(record) && !cgroup::frozen(record.cgroup);
  if (freeze) cgroup::freeze(record.cgroup, true);
  Rollback thaw;
  if (freeze) thaw.add([&] { cgroup::freeze(record.cgroup, false); });
  std::vector<std::pair<pid_t, Fd>> pinned;
  for (const pid_t pid : processes_of(container, record)) {
    try {
      pinned.emplace_back(pid, sys::pidfd_open(pid));
    } catch (const SysError& error) {
      if (error.code() != ESRCH) throw;
    }
  }
  // A number may have been given to another process before it was pinned: the container's are those still listed.
  const std::vector<pid_t> still = processes_of(container, record);
  for (const auto& [pid, pidfd] : pinned) {
    if (!std::binary_search(still.begin(), still.end(), pid)) continue;
    try {
      sys::pidfd_send_signal(pidfd.get(), signal);
    } catch (const SysError& error) {
      if (error.code() != ESRCH) throw;
    }
  }
}

void kill_container(const Container& container, const Record& record) {
  const Fd first = container.pidfd(record);
  if (own_group(record)) cgroup::kill_all(record.cgroup);
  if (!first) return;
  try {
    sys::pidfd_send_signal(first.get(), SIGKILL);
  } catch (const SysError& error) {
    if (error.code() != ESRCH) throw;
  }
  pollfd ended{first.get(), POLLIN, 0};
  for (int waited = 0; container.pidfd(record); waited += kDeathPollMs) {
    if (waited >= kDeathTimeoutMs) throw_error("process {} does not die", record.pid);
    ::poll(&ended, 1, kDeathPollMs);
  }
}

}  // namespace kelp::runtime
