#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "store/containers.h"
#include "store/record_json.h"
#include "sys/clone.h"
#include "sys/lock.h"
#include "sys/procfs.h"

// Status is what the kernel says now: a monitor is alive when a process of its pid and start time in this boot has not
// ended; a flag in a file could only say what was true when it was written.
namespace kelp::store {

namespace {

std::string hex_digits(std::string_view text) {
  std::string digits;
  for (const char letter : text)
    if (letter != '-' && letter != '\n') digits += letter;
  return digits;
}

/// A zombie has ended too, though /proc/PID still exists where a pid 1 does not reap.
bool alive(int pid, std::uint64_t start) {
  if (pid <= 0) return false;
  try {
    const Fd pidfd = sys::pidfd_open(pid);
    return sys::start_time(pid) == start && sys::pidfd_alive(pidfd.get());
  } catch (const Error&) {
    return false;
  }
}

/// The monitor writes {"Status":"healthy",…: nothing else is read for a listing.
std::string read_health(const std::string& path) {
  constexpr std::string_view kBegin = "{\"Status\":\"";
  const auto text = sys::read_small_file(path, 16U << 20U);
  if (!text || !starts_with(*text, kBegin)) return "";
  return text->substr(kBegin.size(), text->find('"', kBegin.size()) - kBegin.size());
}

template <typename T, typename Parse>
std::optional<T> read_json(const std::string& path, Parse parse) {
  try {
    const auto text = sys::read_small_file(path);
    if (!text || text->empty()) return std::nullopt;
    return parse(*text, path);
  } catch (const Error& error) {
    log::debug("{}", error.what());
    return std::nullopt;
  }
}

}  // namespace

bool is_paused(const RunState& run) {
  if (!run.cgroup.empty()) {
    for (const char* mount : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
      const auto text = sys::try_read_file(mount + run.cgroup + "/cgroup.freeze");
      if (text) return trim(*text) == "1";
    }
    return false;
  }
  // Without a cgroup the processes are stopped one by one.
  const auto stat = sys::read_stat(run.pid);
  return stat && stat->state == 'T';
}

const char* status_name(Status status) noexcept {
  switch (status) {
    case Status::created:
      return "created";
    case Status::initialized:
      return "initialized";
    case Status::running:
      return "running";
    case Status::paused:
      return "paused";
    case Status::stopping:
      return "stopping";
    case Status::exited:
      return "exited";
  }
  return "unknown";
}

std::optional<RunState> read_run_state(const Layout& layout, std::string_view id) {
  return read_json<RunState>(layout.run_of(id) + "/state.json", run_state_from_json);
}

namespace {

template <typename Parse>
void refuse_newer(const std::string& path, Parse parse) {
  const auto text = sys::read_small_file(path);
  if (!text || text->empty()) return;
  try {
    parse(*text, path);
  } catch (const NewerRecord&) {
    throw;
  } catch (const Error& error) {
    log::debug("{}", error.message());
  }
}

}  // namespace

void refuse_newer_state(const Layout& layout, std::string_view id) {
  refuse_newer(layout.run_of(id) + "/state.json", run_state_from_json);
}

void refuse_newer_exit(const Layout& layout, std::string_view id) {
  refuse_newer(layout.container(id) + "/exit.json", exit_record_from_json);
}

std::optional<ExitRecord> read_exit_record(const Layout& layout, std::string_view id) {
  return read_json<ExitRecord>(layout.container(id) + "/exit.json", exit_record_from_json);
}

void write_exit_record(const Layout& layout, std::string_view id, const ExitRecord& exit) {
  sys::replace_file(layout.container(id) + "/exit.json", to_json(exit));
}

ContainerStatus status(const Layout& layout, const ContainerRecord& record) {
  ContainerStatus status;
  // The order matters: the monitor writes the exit before it ends, so look for the monitor first.
  const auto run = read_run_state(layout, record.id);
  const bool monitored = run && hex_digits(run->boot) == boot_id() && alive(run->monitor_pid, run->monitor_start);
  status.last_exit = read_exit_record(layout, record.id);
  const bool ended = status.last_exit && run && status.last_exit->finished >= run->started;
  if (monitored) {
    status.run = run;
    if (run->pid == 0) {
      status.status = status.last_exit ? Status::exited : Status::created;
    } else if (alive(run->pid, run->pid_start)) {
      status.status = run->initialized ? Status::initialized : is_paused(*run) ? Status::paused : Status::running;
    } else {
      status.status = ended ? Status::exited : Status::stopping;
    }
    status.health = read_health(layout.container(record.id) + "/health.json");
    return status;
  }
  // No monitor. The overlay's work directory tells whether it ever ran: it is made by the first mount.
  const std::string directory = layout.container(record.id);
  const bool ran =
      status.last_exit || (run && run->pid != 0) || ::access((directory + "/work/work").c_str(), F_OK) == 0;
  status.status = ran ? Status::exited : Status::created;
  status.exit_unknown = ran && (!status.last_exit || (run && run->pid != 0 && !ended));
  // Nothing is lost yet where its first start is under way (a mount, but no state), or where it has just been removed
  // together with its end (--rm): no exit is recorded then.
  if (status.exit_unknown && ::access(directory.c_str(), F_OK) < 0) {
    status.status = Status::stopping;
    status.exit_unknown = false;
  } else if (status.exit_unknown && !run && ::access((directory + "/exit.json").c_str(), F_OK) < 0 &&
             is_locked(layout, record.id)) {
    status.status = Status::created;
    status.exit_unknown = false;
  }
  if (status.exit_unknown) status.last_exit.reset();
  return status;
}

}  // namespace kelp::store
