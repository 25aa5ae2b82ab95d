#include "monitor/records.h"

#include <unistd.h>

#include <fmt/core.h>

#include "base/duration_size.h"
#include "base/log.h"
#include "base/text.h"
#include "sys/lock.h"
#include "sys/procfs.h"

namespace kelp::monitor {

void write_state(const Plan& plan, const StateRecord& state) {
  const std::string text = fmt::format(
      "{{\"schema\":1,\"monitor_pid\":{},\"monitor_start\":{},\"pid\":{},\"pid_start\":{},\"boot\":{},\"cgroup\":{},"
      "\"started\":\"{}\",\"restarts\":{}{}}}\n",
      ::getpid(), sys::start_time(::getpid()), state.pid, state.pid == 0 ? 0 : sys::start_time(state.pid),
      log::json_quote(plan.boot), log::json_quote(plan.cgroup_leaf), format_rfc3339(state.started), state.restarts,
      state.initialized ? ",\"initialized\":true" : "");
  sys::replace_file(plan.run_dir + "/state.json", text);
}

void remove_state(const Plan& plan) noexcept { ::unlink((plan.run_dir + "/state.json").c_str()); }

void write_exit(const Plan& plan, const ExitRecord& exit) {
  const std::string text = fmt::format(
      "{{\"schema\":1,\"code\":{},\"started\":\"{}\",\"finished\":\"{}\",\"oom_killed\":{},\"error\":\"\","
      "\"stopped_by_user\":{},\"restarts\":{}}}\n",
      exit.code, format_rfc3339(exit.started), format_rfc3339(exit.finished), exit.oom_killed, exit.stopped_by_user,
      exit.restarts);
  sys::replace_file(plan.exit_file, text);
}

std::uint64_t oom_kills(const Plan& plan) {
  if (plan.cgroup.empty()) return 0;
  const auto text = sys::try_read_file(plan.cgroup + "/container/memory.events");
  if (!text) return 0;
  for (const auto& line : split(*text, '\n')) {
    if (!starts_with(line, "oom_kill ")) continue;
    return static_cast<std::uint64_t>(to_int(std::string_view(line).substr(9), 0).value_or(0));
  }
  return 0;
}

}  // namespace kelp::monitor
