#include "engine/update.h"

#include <memory>

#include "base/error.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/container_select.h"
#include "cli/options_run.h"
#include "cli/output.h"
#include "sys/procfs.h"

namespace kelp::cli {
namespace {

struct UpdateCommand {
  engine::UpdateRequest request;
  Strings env;
  std::optional<std::string> restart, health_cmd, health_startup_cmd;
  bool latest = false, no_healthcheck = false;
};

/// NAME=VALUE, or NAME with our own value.
void resolve_environment(UpdateCommand& values) {
  for (const auto& text : values.env) {
    const size_t equals = text.find('=');
    if (equals == 0 || text.empty()) throw_usage("--env {}: the name is missing", quoted(text));
    if (equals != std::string::npos) {
      values.request.env[text.substr(0, equals)] = text.substr(equals + 1);
    } else if (const char* own = std::getenv(text.c_str())) {
      values.request.env[text] = own;
    }
  }
}

int update(Invocation& invocation, UpdateCommand& values) {
  const auto record = take_container(invocation, values.latest);
  if (!invocation.arguments.empty())
    throw_usage("{} takes one container; {} is too much", invocation.command, quoted(invocation.arguments.front()));
  auto& request = values.request;
  resolve_environment(values);
  if (values.restart) {
    request.restart_policy.emplace();
    parse_restart(*values.restart, *request.restart_policy, request.restart_max);
  }
  if (values.health_cmd && values.no_healthcheck) throw_usage("--no-healthcheck and --health-cmd exclude each other");
  if (values.no_healthcheck) request.health_test = Strings{"NONE"};
  if (values.health_cmd) request.health_test = parse_health_command(*values.health_cmd);
  if (values.health_startup_cmd) request.health_startup_test = parse_health_command(*values.health_startup_cmd);
  if (request.health_retries && *request.health_retries < 1) throw_usage("--health-retries must be greater than 0");
  engine::update_container(invocation.context, record, request);
  print_line(record.id);
  return 0;
}

}  // namespace

Action define_update(OptionSet& options) {
  auto values = std::make_shared<UpdateCommand>();
  auto& request = values->request;
  options.arguments("CONTAINER", 0, -1, Complete::container);
  add_limit_options(options, request.limits);
  options.custom(
      "ulimit", Kind::list,
      [&request](const std::string& text) {
        if (text == "host")
          request.ulimits = parse_limits_file(sys::read_file("/proc/self/limits"));
        else
          request.ulimits.push_back(parse_ulimit(text));
      },
      "NAME=SOFT[:HARD]", "resource limits from the next start or exec on; host: the caller's");
  options.group("Life");
  options.text("restart", values->restart, "POLICY", "no, always, on-failure[:N], unless-stopped");
  options.group("Process");
  options.list("env,e", values->env, "NAME[=VALUE]", "variable for what is started or executed from now on");
  options.list("unsetenv", request.unset_env, "NAME", "take a variable away");
  options.group("Health");
  options.text("health-cmd", values->health_cmd, "COMMAND", "command that tells the health; none: no check");
  const auto duration = [&options](const char* name, std::optional<std::chrono::nanoseconds>& target,
                                   const char* help) {
    options.custom(
        name, Kind::duration,
        [&target, name](const std::string& text) { target = parse_health_duration(text, std::string("--") + name); },
        "DURATION", help);
  };
  duration("health-interval", request.health_interval, "time between two checks; disable: none");
  duration("health-timeout", request.health_timeout, "time that one check may take");
  duration("health-start-period", request.health_start_period, "time after the start in which failures do not count");
  options.number("health-retries", request.health_retries, "N", "failures until the container is unhealthy");
  options
      .custom(
          "health-on-failure", Kind::text, [&request](const std::string& text) { request.health_on_failure = text; },
          "ACTION", "what happens when it becomes unhealthy")
      .one_of({"none", "kill", "restart", "stop"});
  options.text("health-startup-cmd", values->health_startup_cmd, "COMMAND",
               "command that is run instead until it has succeeded");
  duration("health-startup-interval", request.health_startup_interval, "time between two of these");
  duration("health-startup-timeout", request.health_startup_timeout, "time that one of these may take");
  options.number("health-startup-success", request.health_startup_success, "N",
                 "successes until the container has started");
  options.number("health-startup-retries", request.health_startup_retries, "N",
                 "failures until the container is started again");
  options
      .custom(
          "health-log-destination", Kind::text,
          [&request](const std::string& text) { request.health_log_destination = check_health_log(text); }, "WHERE",
          "local, or a directory that gets a copy of the log")
      .complete(Complete::directory);
  options.number("health-max-log-count", request.health_log_count, "N", "probes that inspect shows; 0: all");
  options.number("health-max-log-size", request.health_log_size, "BYTES", "output kept of each; 0: all");
  options.flag("no-healthcheck", values->no_healthcheck, "ignore the health check of the image");
  options.group("Container");
  add_latest(options, values->latest);
  options.describe("Limits change at once where the container runs; all of it holds from the next start on, too.",
                   "kelp update --memory 512m --cpus 1.5 web\nkelp update --restart on-failure:3 web");
  return [values](Invocation& invocation) { return update(invocation, *values); };
}

}  // namespace kelp::cli
