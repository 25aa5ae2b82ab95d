#include "engine/health.h"

#include "base/error.h"
#include "engine/context.h"
#include "engine/monitor_client.h"
#include "monitor/plan.h"
#include "monitor/protocol.h"
#include "spec/runtime_config.h"
#include "store/containers.h"
#include "sys/lock.h"

namespace kelp::engine {
namespace {

constexpr std::chrono::nanoseconds kDefaultTime = std::chrono::seconds(30);
constexpr int kDefaultRetries = 3;

std::int64_t milliseconds(const std::optional<std::chrono::nanoseconds>& time) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(time.value_or(kDefaultTime)).count();
}

/// The runtime's exec for one kind of probe.
std::vector<std::string> probe_arguments(const spec::Process& container, const store::Strings& test,
                                         const std::string& path, const std::string& id) {
  spec::Process process = container;
  if (test.front() == "CMD-SHELL")
    process.args = {"/bin/sh", "-c", test[1]};
  else
    process.args.assign(test.begin() + (test.front() == "CMD" ? 1 : 0), test.end());
  process.terminal = false;
  process.console_size.reset();
  sys::replace_file(path, spec::print_process(process));
  return {"exec", "--process", path, id};
}

}  // namespace

std::optional<store::HealthCheck> effective_health(const store::ContainerRecord& record) {
  const store::HealthCheck of_image = record.image.health.value_or(store::HealthCheck{});
  store::HealthCheck check = record.config.health.value_or(of_image);
  if (check.test.empty()) {
    check.test = of_image.test;
    if (!check.interval) check.interval = of_image.interval;
    if (!check.timeout) check.timeout = of_image.timeout;
    if (!check.start_period) check.start_period = of_image.start_period;
    if (!check.retries) check.retries = of_image.retries;
  }
  if (check.test.size() < 2) return std::nullopt;  // none, {"NONE"}, or a shell without a line
  for (auto* time : {&check.interval, &check.timeout, &check.startup_interval, &check.startup_timeout})
    if (!*time) *time = kDefaultTime;
  if (!check.start_period) check.start_period = std::chrono::nanoseconds(0);
  if (!check.retries) check.retries = kDefaultRetries;
  return check;
}

std::string health_file(const Context& context, const store::ContainerRecord& record, const store::HealthCheck&) {
  return context.layout.container(record.id) + "/health.json";
}

void plan_health_check(const store::ContainerRecord& record, const std::string& bundle, std::string_view config_json,
                       monitor::Plan& plan) {
  const auto check = effective_health(record);
  if (!check) return;
  const spec::RuntimeConfig config = spec::parse_runtime_config(config_json);
  if (!config.process) throw_error("{}/config.json has no process", bundle);
  monitor::HealthPlan& health = plan.health;
  health.exec = probe_arguments(*config.process, check->test, plan.run_dir + "/health-process.json", plan.id);
  health.interval_ms = milliseconds(check->interval);
  health.timeout_ms = milliseconds(check->timeout);
  health.start_period_ms = milliseconds(check->start_period);
  health.retries = *check->retries;
  if (check->startup_test.size() >= 2) {
    health.startup.exec =
        probe_arguments(*config.process, check->startup_test, plan.run_dir + "/startup-process.json", plan.id);
    health.startup.interval_ms = milliseconds(check->startup_interval);
    health.startup.timeout_ms = milliseconds(check->startup_timeout);
    health.startup_success = check->startup_success;
    health.startup_retries = check->startup_retries;
  }
  health.on_failure = check->on_failure;
  health.log_count = check->max_log_count;
  health.log_size = check->max_log_size;
  health.file = bundle + "/health.json";
  if (check->log_destination.front() == '/')
    health.log_copy = check->log_destination + "/" + record.id + "-healthcheck.log";
}

bool run_health_check(Context& context, const store::ContainerRecord& record) {
  if (!effective_health(record)) throw_error("container {} has no defined healthcheck", record.id);
  const auto status = store::status(context.layout, record).status;
  if (status != store::Status::running)
    throw_error("container {} is {}, not running: it cannot be checked", record.name, store::status_name(status));
  const auto link = connect_monitor(context, record.id);
  if (!link) throw_error("container {} is not running", record.name);
  if (link->version < 2)
    throw Error(fmt::format("the monitor of container {} is too old to be asked for its health", record.name))
        .with_hint("kelp restart " + record.name);
  if (monitor::send_frame(link->socket.get(), {.type = monitor::Msg::health_check}, {}, {}, true) != monitor::Sent::yes)
    throw_error("container {} has ended meanwhile", record.name);
  for (;;) {
    monitor::Frame frame;
    if (monitor::receive_frame(link->socket.get(), frame, true) != monitor::Received::frame)
      throw_error("container {} has ended meanwhile", record.name);
    if (frame.header.type == monitor::Msg::exec_ended && frame.header.value == 2)
      throw_error("the health check of container {} took longer than its time limit", record.name);
    if (frame.header.type == monitor::Msg::exec_ended) return frame.header.value == 0;
    if (frame.header.type == monitor::Msg::failed)
      throw_error("health check of container {}: {}", record.name, frame.payload);
  }
}

}  // namespace kelp::engine
