// Health checks run inside the monitor: no timer unit, no process between two checks. A probe is one `exec` of the
// runtime with its output in a pipe.

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>

#include <fmt/core.h>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/log.h"
#include "monitor/monitor.h"
#include "sys/lock.h"

namespace kelp::monitor {
namespace {

using std::chrono::milliseconds;

/// More than anybody wants to see in inspect, whatever --health-max-log-size says.
constexpr size_t kMaxOutput = 1 << 20;

}  // namespace

const ProbePlan& Monitor::probe() const {
  if (health_.startup_left > 0) return plan_.health.startup;
  return plan_.health;
}

void Monitor::begin_health() {
  if (plan_.health.exec.empty()) return;
  health_.status = "starting";
  health_.failures = health_.startup_failures = 0;
  health_.startup_left = plan_.health.startup.exec.empty() ? 0 : std::max(plan_.health.startup_success, 1);
  health_.log.clear();
  write_health();
}

void Monitor::start_health_checks() {
  if (!plan_.health.exec.empty()) schedule_probe();
}

void Monitor::stop_health_checks() {
  loop_.cancel(std::exchange(health_.timer, 0));
  loop_.cancel(std::exchange(health_.kill_timer, 0));
  for (const int client : std::exchange(health_.askers, {}))
    clients_.tell(client, {.type = Msg::failed, .value = kExitFailure}, "the container has ended");
}

void Monitor::schedule_probe() {
  loop_.cancel(std::exchange(health_.timer, 0));
  if (probe().interval_ms > 0) health_.timer = loop_.after(milliseconds(probe().interval_ms), [this] { run_probe(); });
}

void Monitor::run_probe() {
  if (!started_ || ended_ || health_.pid != 0) return;
  loop_.cancel(std::exchange(health_.timer, 0));
  health_.now = {};
  health_.now.begun = std::chrono::system_clock::now();
  try {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) < 0) throw_errno("make a pipe");
    health_.output = Fd(ends[0]);
    const Fd far(ends[1]);
    ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
    sys::SpawnRequest request;
    request.path = plan_.runtime.front();
    request.argv = plan_.runtime;
    request.argv.insert(request.argv.end(), probe().exec.begin(), probe().exec.end());
    request.fds = {{0, -1}, {1, far.get()}, {2, far.get()}};
    sys::Child child = sys::spawn(request);
    health_.pid = child.pid;
    health_.timed_out = false;
    child.detach();
    health_.watch = loop_.watch(health_.output.get(), POLLIN, [this](short) { read_probe(); });
    reaper_.expect(health_.pid, [this](int code) { probe_ended(code); });
    health_.kill_timer = loop_.after(milliseconds(probe().timeout_ms), [this] {
      health_.timed_out = true;
      if (health_.pid != 0) ::kill(health_.pid, SIGKILL);
    });
  } catch (const Error& error) {
    log::warn("health check: {}", error.message());
    health_.now.output = error.message();
    probe_ended(kExitFailure);
  }
}

void Monitor::read_probe() {
  char text[4096];
  ssize_t count = 0;
  while (health_.output && (count = ::read(health_.output.get(), text, sizeof text)) > 0)
    health_.now.output.append(text, std::min(static_cast<size_t>(count), kMaxOutput - health_.now.output.size()));
  if (count == 0) loop_.forget(std::exchange(health_.watch, 0));
}

void Monitor::probe_ended(int code) {
  loop_.cancel(std::exchange(health_.kill_timer, 0));
  read_probe();
  loop_.forget(std::exchange(health_.watch, 0));
  health_.output.reset();
  health_.pid = 0;
  if (ended_ || plan_.health.exec.empty()) return;  // `update` may have taken the check away
  health_.now.ended = std::chrono::system_clock::now();
  health_.now.code = code;
  if (health_.timed_out) health_.now.output += fmt::format("timed out after {} ms", probe().timeout_ms);
  const bool timed_out = health_.timed_out, good = code == 0 && !timed_out;
  if (plan_.health.log_size != 0 && health_.now.output.size() > plan_.health.log_size)
    health_.now.output.resize(plan_.health.log_size);
  health_.log.push_back(std::move(health_.now));
  while (plan_.health.log_count != 0 && health_.log.size() > plan_.health.log_count) health_.log.pop_front();
  const std::string before = health_.status;
  judge_probe(good);
  write_health();
  emit("health_status", fmt::format(",\"HealthStatus\":\"{}\"", health_.status));
  if (before != "healthy" && health_.status == "healthy") notify_.healthy(plan_.notify);
  for (const int client : std::exchange(health_.askers, {}))
    clients_.tell(client, {.type = Msg::exec_ended, .value = good ? 0u : timed_out ? 2u : 1u});
  schedule_probe();
  if (before != "unhealthy" && health_.status == "unhealthy") act_on_bad_health();
}

void Monitor::judge_probe(bool good) {
  if (health_.startup_left > 0) {
    health_.startup_failures = good ? 0 : health_.startup_failures + 1;
    if (good && --health_.startup_left == 0) health_.status = "healthy";
    if (plan_.health.startup_retries > 0 && health_.startup_failures >= plan_.health.startup_retries) {
      log::warn("the start-up check has failed {} times: the container is restarted", health_.startup_failures);
      restart_wanted_ = true;
      kill_container();
    }
    return;
  }
  if (good) {
    health_.failures = 0;
    health_.status = "healthy";
    return;
  }
  const auto age = std::chrono::system_clock::now() - state_.started;
  const bool settling = health_.status == "starting" && age < milliseconds(plan_.health.start_period_ms);
  if (!settling && ++health_.failures >= plan_.health.retries) health_.status = "unhealthy";
}

void Monitor::act_on_bad_health() {
  const std::string& action = plan_.health.on_failure;
  if (action == "none" || action.empty()) return;
  log::warn("the container is unhealthy: {}", action);
  if (action == "kill") return kill_container();
  if (action == "stop") return stop(0, plan_.stop_timeout);
  restart_wanted_ = true;
  signal(0, plan_.stop_signal);
  loop_.cancel(kill_timer_);
  kill_timer_ = loop_.after(std::chrono::seconds(plan_.stop_timeout), [this] { kill_container(); });
}

/// In the form of inspect's State.Health, with the schema of a record; `Status` comes first, so that a listing need not
/// parse the rest.
void Monitor::write_health() const {
  std::string text =
      fmt::format("{{\"Status\":\"{}\",\"schema\":1,\"FailingStreak\":{},\"Log\":[", health_.status, health_.failures);
  for (const auto& one : health_.log) {
    if (&one != &health_.log.front()) text += ",";
    text += fmt::format("{{\"Start\":\"{}\",\"End\":\"{}\",\"ExitCode\":{},\"Output\":{}}}", format_rfc3339(one.begun),
                        format_rfc3339(one.ended), one.code, log::json_quote(one.output));
  }
  try {
    text += "]}\n";
    sys::replace_file(plan_.health.file, text);
    if (!plan_.health.log_copy.empty()) sys::replace_file(plan_.health.log_copy, text);
  } catch (const Error& error) {
    log::warn("{}", error.message());
  }
}

void Monitor::health_check(int client) {
  if (plan_.health.exec.empty()) {
    clients_.tell(client, {.type = Msg::failed, .value = kExitFailure}, "the container has no health check");
    return;
  }
  if (!started_ || ended_) {
    clients_.tell(client, {.type = Msg::failed, .value = kExitFailure}, "the container is not running");
    return;
  }
  health_.askers.push_back(client);
  run_probe();  // nothing when one is under way: its result is the answer
}

}  // namespace kelp::monitor
