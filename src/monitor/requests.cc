// What clients ask of a running container.

#include <signal.h>
#include <unistd.h>

#include <algorithm>

#include <fmt/core.h>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "monitor/monitor.h"
#include "sys/procfs.h"

namespace kelp::monitor {

void Monitor::signal(int client, int number) {
  const auto own = std::find_if(execs_.begin(), execs_.end(), [client](const Exec& e) { return e.client == client; });
  if (own != execs_.end()) {
    ::kill(own->pid, number);  // the runtime's exec passes it on to its process
    return;
  }
  if (!started_ || ended_) return;
  try {
    sys::pidfd_send_signal(pidfd_.get(), number);
  } catch (const Error& error) {
    log::debug("{}", error.message());
  }
}

void Monitor::stop(int number, unsigned seconds) {
  stopped_by_user_ = stopping_ = true;
  if (!started_ || ended_) return;
  // A paused container could not even receive the signal.
  if (!plan_.cgroup.empty()) {
    try {
      sys::write_file(plan_.cgroup + "/container/cgroup.freeze", "0");
    } catch (const Error& error) {
      log::debug("{}", error.message());
    }
  }
  if (seconds == 0) {
    kill_container();
    return;
  }
  signal(0, number != 0 ? number : plan_.stop_signal);
  loop_.cancel(kill_timer_);
  kill_timer_ = loop_.after(std::chrono::seconds(std::min(seconds, 1000000u)), [this] { kill_container(); });
}

void Monitor::exec(int client, Frame& frame) {
  const auto refuse = [&](int code, const std::string& text) {
    clients_.tell(client, {.type = Msg::failed, .value = static_cast<std::uint32_t>(code)}, text);
  };
  try {
    if (!started_ || ended_) return refuse(kExitFailure, "the container is not running");
    sys::SpawnRequest request;
    request.path = plan_.runtime.front();
    request.argv = plan_.runtime;
    size_t next_fd = 0;
    std::string id;
    for (const auto& [key, value] : parse_records(frame.payload)) {
      if (key == "arg") request.argv.push_back(value);
      if (key == "id") id = fmt::format(",\"ExecID\":{}", log::json_quote(value));
      if (key != "fd") continue;
      const auto number = to_int(value, 0, 1 << 16);
      if (!number || next_fd == frame.fds.size()) return refuse(kExitFailure, "exec: descriptors are missing");
      request.fds.emplace_back(static_cast<int>(*number), frame.fds[next_fd++].get());
    }
    sys::Child child = sys::spawn(request);
    const pid_t pid = child.pid;
    child.detach();
    execs_.push_back({client, pid});
    clients_.tell(client, {.type = Msg::exec_started, .value = static_cast<std::uint32_t>(pid)});
    emit("exec", id);
    reaper_.expect(pid, [this, client, pid, id](int code) {
      if (!ended_) emit("exec_died", fmt::format(",\"ContainerExitCode\":{}{}", code, id));
      std::erase_if(execs_, [pid](const Exec& e) { return e.pid == pid; });
      clients_.tell(client, {.type = Msg::exec_ended, .value = static_cast<std::uint32_t>(code)});
    });
  } catch (const Error& error) {
    refuse(error.exit_code(), error.message());
  }
}

void Monitor::update(int client, std::string_view change) {
  const std::string check = encode_change(plan_), file = plan_.health.file;
  try {
    apply_change(plan_, change);
  } catch (const Error& error) {
    return clients_.tell(client, {.type = Msg::failed, .value = kExitFailure}, error.message());
  }
  // A check that runs right now ends by itself, and its result counts; the timer is set again then.
  if (started_ && !ended_ && check != change && health_.pid == 0) {
    stop_health_checks();
    start_health_checks();
  }
  if (plan_.health.exec.empty() && !file.empty()) ::unlink(file.c_str());
  clients_.tell(client, {.type = Msg::updated});
}

void Monitor::rename(int client, std::string_view name) {
  // Names are of letters, digits and "_.-", and the labels, which may hold anything, come after.
  constexpr std::string_view kField = "\"Name\":\"";
  std::string& subject = plan_.event_subject;
  if (const size_t field = subject.find(kField); field != std::string::npos) {
    const size_t old = field + kField.size();
    subject.replace(old, subject.find('"', old) - old, name);
  }
  plan_.name = name;
  clients_.tell(client, {.type = Msg::updated});
}

void Monitor::client_gone(int client) {
  // Its process goes on, but nobody waits for the code any more.
  for (auto& exec : execs_)
    if (exec.client == client) exec.client = 0;
}

}  // namespace kelp::monitor
