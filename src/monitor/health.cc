// Health checks run inside the monitor: no timer unit, no process between two checks.

#include <signal.h>

#include <fmt/core.h>

#include "base/error.h"
#include "base/log.h"
#include "monitor/monitor.h"
#include "sys/lock.h"

namespace kelp::monitor {

using std::chrono::milliseconds;

void Monitor::schedule_health_check(milliseconds delay) {
  if (plan_.health.interval_ms <= 0) return;
  health_.timer = loop_.after(delay, [this] { run_health_check(); });
}

void Monitor::run_health_check() {
  if (!started_ || ended_) return;
  try {
    sys::SpawnRequest request;
    request.path = plan_.runtime.front();
    request.argv = plan_.runtime;
    request.argv.insert(request.argv.end(), plan_.health.exec.begin(), plan_.health.exec.end());
    for (int fd : {0, 1, 2}) request.fds.emplace_back(fd, -1);
    sys::Child child = sys::spawn(request);
    health_.pid = child.pid;
    health_.timed_out = false;
    child.detach();
    reaper_.expect(health_.pid, [this](int code) { health_result(code); });
    health_.kill_timer = loop_.after(milliseconds(plan_.health.timeout_ms), [this] {
      health_.timed_out = true;
      if (health_.pid != 0) ::kill(health_.pid, SIGKILL);
    });
  } catch (const Error& error) {
    log::warn("health check: {}", error.message());
    health_result(kExitFailure);
  }
}

void Monitor::health_result(int code) {
  loop_.cancel(health_.kill_timer);
  health_.pid = 0;
  if (ended_) return;
  if (code == 0 && !health_.timed_out) {
    health_.failures = 0;
    health_.status = "healthy";
  } else {
    const auto age = std::chrono::system_clock::now() - state_.started;
    const bool settling = health_.status == "starting" && age < milliseconds(plan_.health.start_period_ms);
    if (!settling && ++health_.failures >= plan_.health.retries) health_.status = "unhealthy";
  }
  write_health();
  schedule_health_check(milliseconds(plan_.health.interval_ms));
}

void Monitor::write_health() const {
  try {
    sys::replace_file(plan_.run_dir + "/health", fmt::format("{}\nfailures {}\n", health_.status, health_.failures));
  } catch (const Error& error) {
    log::warn("{}", error.message());
  }
}

}  // namespace kelp::monitor
