#include "engine/stop.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "cgroup/cgroup.h"
#include "engine/context.h"
#include "engine/events.h"
#include "engine/make_spec.h"
#include "engine/monitor_client.h"
#include "engine/run.h"
#include "monitor/protocol.h"
#include "store/containers.h"
#include "sys/clone.h"
#include "sys/procfs.h"
#include "sys/signals.h"

namespace kelp::engine {
namespace {

using monitor::Msg;

constexpr int kTries = 100;

void send(const MonitorLink& link, monitor::Header header) {
  monitor::send_frame(link.socket.get(), header, {}, {}, true);
}

/// The container's first process, pinned; nullopt when it has gone.
std::optional<Fd> open_init(const store::RunState& state) {
  try {
    Fd init = sys::pidfd_open(state.pid);
    if (sys::start_time(state.pid) == state.pid_start && sys::pidfd_alive(init.get())) return init;
  } catch (const SysError& error) {
    log::debug("{}", error.message());
  }
  return std::nullopt;
}

bool is_live(store::Status status) { return store::can_be_entered(status) || status == store::Status::stopping; }

/// Reads until the end of the container is told. nullopt: the monitor ended without a word.
std::optional<int> wait_for_end(const MonitorLink& link, bool restarts_count) {
  for (;;) {
    monitor::Frame frame;
    if (monitor::receive_frame(link.socket.get(), frame, true) != monitor::Received::frame) return std::nullopt;
    if (frame.header.type == Msg::failed) return std::nullopt;
    if (frame.header.type == Msg::ended && (restarts_count || frame.header.flags == 0))
      return static_cast<int>(frame.header.value);
  }
}

/// Until the monitor has gone too: then lock, mounts and directories are free.
void wait_for_monitor(const store::RunState& state) {
  try {
    const Fd monitor = sys::pidfd_open(state.monitor_pid);
    if (sys::start_time(state.monitor_pid) != state.monitor_start) return;
    pollfd gone{monitor.get(), POLLIN, 0};
    ::poll(&gone, 1, 10000);
  } catch (const SysError& error) {
    log::debug("{}", error.message());
  }
}

/// A signal after which the container is expected to end.
bool ends_containers(int signal) {
  return signal == SIGKILL || signal == SIGTERM || signal == SIGINT || signal == SIGQUIT || signal == SIGHUP ||
         signal == SIGABRT;
}

/// The monitor cannot be reached: signals go to the process itself, the monitor sees its end and cleans up.
void stop_without_monitor(const store::RunState& state, const store::ContainerRecord& record, unsigned seconds) {
  log::warn("the monitor of container {} cannot be reached: its process is stopped directly", record.name);
  const auto init = open_init(state);
  if (init && seconds != 0) {
    sys::pidfd_send_signal(init->get(), sys::signal_from_name(effective_stop_signal(record)));
    pollfd gone{init->get(), POLLIN, 0};
    ::poll(&gone, 1, static_cast<int>(std::min(seconds, 1000000u)) * 1000);
  }
  if (init && sys::pidfd_alive(init->get())) sys::pidfd_send_signal(init->get(), SIGKILL);
  wait_for_monitor(state);
}

std::string group_path(const store::ContainerRecord& record, const store::ContainerStatus& status, const char* verb) {
  if (!status.run || status.run->cgroup.empty())
    throw Error(fmt::format("{} container {}: it has no cgroup, so it cannot be frozen", verb, record.name))
        .with_hint("cgroup v2 with delegation is needed: `kelp doctor` says what is missing");
  return cgroup::v2_mount() + status.run->cgroup;
}

}  // namespace

bool stop_container(Context& context, const store::ContainerRecord& record, std::optional<unsigned> timeout) {
  store::refuse_newer_state(context.layout, record.id);
  const unsigned seconds = timeout.value_or(record.config.stop_timeout.value_or(10));
  for (int tries = 0; tries < kTries; ++tries) {
    const auto status = store::status(context.layout, record);
    // A monitor that waits for its next restart has no process either, and must be told as well.
    if (!status.run && !is_live(status.status)) return false;
    const auto link = connect_monitor(context, record.id);
    if (!link) {
      // It has just ended, or its socket was taken away (a run directory that somebody cleans).
      if (status.run && tries >= kTries / 2) stop_without_monitor(*status.run, record, seconds);
      ::usleep(10000);
      continue;
    }
    send(*link, {.type = Msg::stop, .value = seconds});
    if (!wait_for_end(*link, false)) {
      ::usleep(1000);
      continue;
    }
    if (status.run) wait_for_monitor(*status.run);
    if (is_live(status.status)) emit_event(context, record, "stop");
    return is_live(status.status);
  }
  throw_error("container {} cannot be stopped: its monitor does not end", record.name);
}

void kill_container(Context& context, const store::ContainerRecord& record, int signal) {
  store::refuse_newer_state(context.layout, record.id);
  const auto status = store::status(context.layout, record);
  if ((status.status != store::Status::running && status.status != store::Status::paused) || !status.run)
    throw_usage("can only kill running containers. {} is in state {}", record.id, store::status_name(status.status));
  const auto init = open_init(*status.run);
  if (!init) throw_usage("can only kill running containers. {} is in state exited", record.id);
  if (record.config.restart_policy != "no" && ends_containers(signal)) {
    if (const auto link = connect_monitor(context, record.id)) {
      send(*link, {.type = Msg::user_stop});
      send(*link, {.type = Msg::signal, .value = static_cast<std::uint32_t>(signal)});
      send(*link, {.type = Msg::hello, .value = monitor::kVersion});  // its answer says that the others were handled
      monitor::Frame frame;
      monitor::receive_frame(link->socket.get(), frame, true);
      return emit_event(context, record, "kill", fmt::format(",\"Signal\":{}", signal));
    }
  }
  sys::pidfd_send_signal(init->get(), signal);
  emit_event(context, record, "kill", fmt::format(",\"Signal\":{}", signal));
}

void pause_container(Context& context, const store::ContainerRecord& record) {
  const auto status = store::status(context.layout, record);
  if (status.status != store::Status::running)
    throw_usage("{} is not running, can't pause: container state improper", record.id);
  cgroup::freeze(group_path(record, status, "pause"), true);
  emit_event(context, record, "pause");
}

void unpause_container(Context& context, const store::ContainerRecord& record) {
  const auto status = store::status(context.layout, record);
  if (status.status != store::Status::paused)
    throw_usage("{} is not paused, can't unpause: container state improper", record.id);
  cgroup::freeze(group_path(record, status, "unpause"), false);
  emit_event(context, record, "unpause");
}

namespace {

/// What --condition knows of the moment; nullopt: not yet.
std::optional<int> condition_met(Context& context, const store::ContainerRecord& record,
                                 const std::vector<std::string>& conditions) {
  const auto wanted = [&](std::string_view name) {
    return std::find(conditions.begin(), conditions.end(), name) != conditions.end();
  };
  const bool end_wanted = conditions.empty() || wanted("exited") || wanted("stopped");
  const auto status = store::status(context.layout, record);
  const bool ended = status.status == store::Status::exited;
  if (end_wanted && (ended || (conditions.empty() && status.status == store::Status::created))) {
    if (status.last_exit) return status.last_exit->code;
    store::refuse_newer_exit(context.layout, record.id);
    if (status.exit_unknown)
      throw_error("container {} has ended, but its exit code was lost with its monitor", record.name);
    return conditions.empty() ? 0 : -1;
  }
  if (wanted(store::status_name(status.status)) || (!status.health.empty() && wanted(status.health))) return -1;
  if (wanted("configured") && status.status == store::Status::created) return -1;
  if (!store::find(context.layout, record.id)) {
    if (wanted("removing")) return -1;
    throw_usage("no container with ID {} found: it was removed", record.id);
  }
  return std::nullopt;
}

void check_conditions(const std::vector<std::string>& conditions) {
  static const std::vector<std::string> known{"configured", "created", "exited",  "healthy",  "initialized", "paused",
                                              "removing",   "running", "stopped", "stopping", "unhealthy",   "unknown"};
  for (const auto& condition : conditions)
    if (std::find(known.begin(), known.end(), condition) == known.end())
      throw_usage("invalid condition {}", quoted(condition));
}

void pause_between_looks(std::chrono::milliseconds interval) {
  ::usleep(static_cast<useconds_t>(std::clamp<long long>(interval.count(), 1, 3600000)) * 1000);
}

}  // namespace

int wait_container(Context& context, const store::ContainerRecord& record, const std::vector<std::string>& conditions,
                   std::chrono::milliseconds interval) {
  check_conditions(conditions);
  const bool end_only =
      conditions.empty() || (conditions.size() == 1 && (conditions[0] == "exited" || conditions[0] == "stopped"));
  for (;;) {
    if (end_only && store::status(context.layout, record).status != store::Status::exited) {
      if (const auto link = connect_monitor(context, record.id)) {
        if (const auto code = wait_for_end(*link, true)) return *code;
        // Removed together with its end (--rm), and nobody told us: it is over.
        if (!store::find(context.layout, record.id)) return 0;
        continue;
      }
    }
    if (const auto code = condition_met(context, record, conditions)) return *code;
    pause_between_looks(interval);
  }
}

int wait_for_any(Context& context, const std::vector<store::ContainerRecord>& records,
                 const std::vector<std::string>& conditions, std::chrono::milliseconds interval) {
  check_conditions(conditions);
  for (;;) {
    for (const auto& record : records)
      if (const auto code = condition_met(context, record, conditions)) return *code;
    pause_between_looks(interval);
  }
}

void restart_container(Context& context, const store::ContainerRecord& record, std::optional<unsigned> timeout) {
  stop_container(context, record, timeout);
  start_container(context, record, {});
  emit_event(context, record, "restart");
}

}  // namespace kelp::engine
