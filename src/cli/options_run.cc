#include "cli/options_run.h"

#include <unistd.h>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"
#include "engine/logs.h"
#include "sys/lock.h"
#include "sys/subid.h"

namespace kelp::cli {
namespace {

std::string read_named_file(const std::string& path, const char* option) {
  auto text = sys::read_small_file(path, 4U << 20U);
  if (!text) throw_usage("{}: there is no file {}", option, quoted(path));
  return std::move(*text);
}

void add_container_options(OptionSet& options, RunOptions& values) {
  auto& config = values.config;
  options.group("Container");
  options.text("name", config.name, "NAME", "name of the container").shows("adjective_noun");
  options.flag("replace", values.replace, "remove a container that has the name first");
  options.flag("rm", config.remove, "remove the container when it ends");
  options.text("hostname,h", config.hostname, "NAME", "host name inside the container");
  options.list("label,l", values.labels, "KEY=VALUE", "label of the container");
  options.csv("label-file", values.label_files, "FILE", "read labels from a file").complete(Complete::file);
  options.custom(
      "annotation", Kind::map,
      [&config](const std::string& text) { apply_key_values(config.annotations, text, "--annotation"); }, "KEY=VALUE",
      "annotation for the OCI runtime");
  options.text("cidfile", config.cidfile, "FILE", "write the ID of the container to a file").complete(Complete::file);
  options.text("pidfile", config.pidfile, "FILE", "write the PID of the container's process to a file")
      .complete(Complete::file);
  options.text("conmon-pidfile", config.conmon_pidfile, "FILE", "write the PID of the container's monitor to a file")
      .complete(Complete::file);
  options.text("sdnotify", config.sdnotify, "WHO", "who tells systemd that the service is ready")
      .one_of({"container", "conmon", "healthy", "ignore"})
      .empty_means("container")
      .shows("container");
  options
      .custom(
          "restart", Kind::text,
          [&config](const std::string& text) { parse_restart(text, config.restart_policy, config.restart_max); },
          "POLICY", "start again when it ends: no, always, unless-stopped, on-failure[:N]")
      .shows("no");
  options.csv("requires", config.depends_on, "CONTAINER", "containers that must run first")
      .complete(Complete::container);
  options.custom(
      "attach,a", Kind::csv,
      [&config](const std::string& text) {
        for (const auto& stream : split_csv(text, "--attach")) config.attach.push_back(parse_attach(stream));
        if (text.empty()) throw_usage("--attach: one of stdin, stdout and stderr is missing");
      },
      "STREAM", "connect only this stream: stdin, stdout, stderr");
  options.text("log-driver", config.log_driver, "DRIVER", "where output goes")
      .one_of({"k8s-file", "json-file", "journald", "none", "passthrough"})
      .empty_means("k8s-file")
      .shows("k8s-file");
  options.custom(
      "log-opt", Kind::map,
      [&config](const std::string& text) {
        apply_key_values(config.log_options, text, "--log-opt");
        for (const auto& [key, value] : config.log_options) {
          if (key == "max-size") parse_size(value, "--log-opt max-size");
          if (key == "max-file" && !to_int(value, 1, engine::kMostLogFiles))
            throw_usage("invalid --log-opt max-file {}: a number from 1 to {}", quoted(value), engine::kMostLogFiles);
          if (key != "path" && key != "max-size" && key != "max-file" && key != "tag")
            throw_usage("--log-opt: unknown key {}; there are path, max-size, max-file and tag", quoted(key));
        }
      },
      "KEY=VALUE", "log settings: path, max-size, max-file (with max-size, how many to keep: 2), tag");
}

void add_image_options(OptionSet& options, RunOptions& values) {
  options.group("Image");
  options
      .custom(
          "pull", Kind::text,
          [&values](const std::string& text) {
            values.pull.policy = text == "true" ? "always" : text == "false" ? "missing" : text;
          },
          "POLICY", "when to ask the registry")
      .one_of({"missing", "always", "never", "newer", "true", "false"})
      .empty_means("missing")
      .also_spelled(pull_policy)
      .shows("missing");
  options.flag("quiet,q", values.quiet, "do not show the progress of a pull");
  add_platform_options(options, values.config.platform, values.os, values.arch, values.variant);
  add_registry_options(options, values.pull);
  options.flag("rootfs", values.rootfs, "the argument is a directory to run in, not an image");
}

store::HealthCheck& health_of(RunOptions& values) {
  if (!values.config.health) values.config.health.emplace();
  return *values.config.health;
}

void finish_health(RunOptions& values) {
  if (values.health_cmd == "") values.health_cmd.reset();
  if (!values.health_startup_cmd && (values.health.startup_success != 0 || values.health.startup_retries != 0 ||
                                     values.health.startup_interval || values.health.startup_timeout))
    throw_usage("the --health-startup options need --health-startup-cmd");
  if (values.health.startup_retries < 0 || values.health.startup_success < 0)
    throw_usage("--health-startup-retries and --health-startup-success must not be negative");
  if (values.health_startup_cmd) values.health.startup_test = parse_health_command(*values.health_startup_cmd);
  const bool others = values.health_startup_cmd || values.health.startup_interval || values.health.startup_timeout ||
                      values.health.on_failure != "none" || values.health.log_destination != "local" ||
                      values.health.max_log_count != 5 || values.health.max_log_size != 500;
  if (others) {
    if (values.no_healthcheck) throw_usage("--no-healthcheck and the other --health options exclude each other");
    values.config.health = values.health;
  }
  if (values.no_healthcheck) {
    if (values.health_cmd) throw_usage("--no-healthcheck and --health-cmd exclude each other");
    health_of(values).test = {"NONE"};
    return;
  }
  if (values.health_cmd) health_of(values).test = parse_health_command(*values.health_cmd);
  if (values.health_interval) health_of(values).interval = *values.health_interval;
  if (values.health_timeout) health_of(values).timeout = *values.health_timeout;
  if (values.health_start_period) health_of(values).start_period = *values.health_start_period;
  if (values.health_retries) {
    if (*values.health_retries < 1) throw_usage("--health-retries must be greater than 0");
    health_of(values).retries = *values.health_retries;
  }
}

/// newuidmap gives nobody another user's range, so the name can only be the caller's.
void finish_subid_names(RunOptions& values) {
  const auto range = [](const std::string& name, const char* option, const sys::IdRanges& own) {
    if (name != sys::own_user_name() && name != std::to_string(::geteuid()))
      throw UsageError(fmt::format("{} {}: an ordinary user is given ids of his own range only", option, quoted(name)))
          .with_hint(fmt::format("{} {}", option, sys::own_user_name()));
    std::uint64_t count = 0;
    for (const auto& part : own) count += part.count;
    if (count == 0) throw_usage("{} {}: there is no range for this user", option, quoted(name));
    return Strings{fmt::format("0:1:{}", count)};
  };
  auto& config = values.config;
  if (values.subuid_name == "") values.subuid_name.reset();
  if (values.subgid_name == "") values.subgid_name.reset();
  if (!values.subuid_name && !values.subgid_name) return;
  if (!config.userns.empty() || !config.uidmap.empty() || !config.gidmap.empty())
    throw_usage("--subuidname and --subgidname exclude --userns, --uidmap and --gidmap");
  // One alone means the other as well.
  config.uidmap =
      range(values.subuid_name.value_or(values.subgid_name.value_or("")), "--subuidname", sys::own_subuids());
  config.gidmap =
      range(values.subgid_name.value_or(values.subuid_name.value_or("")), "--subgidname", sys::own_subgids());
}

void finish_environment(RunOptions& values) {
  auto& config = values.config;
  StringMap host;
  if (values.env_host || !values.env.empty() || !values.env_files.empty()) host = host_environment();
  if (values.env_host) config.env = host;
  for (const auto& path : values.env_files) {
    apply_env_file(config.env, read_named_file(path, "--env-file"), path, host);
  }
  for (const auto& text : values.env) apply_env(config.env, text, host);
  for (const auto& path : values.label_files) {
    apply_label_file(config.labels, read_named_file(path, "--label-file"), path);
  }
  for (const auto& text : values.labels) {
    const size_t equals = text.find('=');
    if (text.empty() || equals == 0) throw_usage("--label {}: the key is missing", quoted(text));
    config.labels[text.substr(0, equals)] = equals == std::string::npos ? "" : text.substr(equals + 1);
  }
}

}  // namespace

void add_registry_options(OptionSet& options, engine::PullOptions& pull) {
  options
      .custom(
          "authfile", Kind::text,
          [&pull](const std::string& text) {
            if (!text.empty() && ::access(text.c_str(), F_OK) < 0) throw_errno("--authfile {}", text);
            pull.authfile = text;
          },
          "FILE", "credentials of registries")
      .complete(Complete::file);
  options.text("creds", pull.creds, "USER[:PASSWORD]", "credentials for this pull");
  options.text("cert-dir", pull.cert_dir, "DIR", "certificates for the registry").complete(Complete::directory);
  options.flag("tls-verify", pull.tls_verify, "insist on a valid certificate of the registry").shows("true");
  options.number("retry", pull.retry, "N", "how often a failed transfer is tried again");
  options.text("retry-delay", pull.retry_delay, "DURATION", "time between two tries");
}

void add_platform_options(OptionSet& options, std::string& platform, std::string& os, std::string& arch,
                          std::string& variant) {
  options.text("platform", platform, "OS/ARCH[/VARIANT]", "platform of the image").shows("this machine's");
  options.text("os", os, "OS", "operating system of the image");
  options.text("arch", arch, "ARCH", "architecture of the image");
  options.text("variant", variant, "VARIANT", "variant of the architecture");
}

void add_health_options(OptionSet& options, RunOptions& values) {
  options.group("Health");
  options.text("health-cmd", values.health_cmd, "COMMAND", "command that tells the health; none: no check");
  const auto duration = [&options](const char* name, std::optional<std::chrono::nanoseconds>& target, const char* help,
                                   const char* fallback) {
    options
        .custom(
            name, Kind::duration,
            [&target, name](const std::string& text) {
              target = parse_health_duration(text, std::string("--") + name);
            },
            "DURATION", help)
        .shows(fallback);
  };
  duration("health-interval", values.health_interval, "time between two checks; disable: none", "30s");
  duration("health-timeout", values.health_timeout, "time that one check may take", "30s");
  duration("health-start-period", values.health_start_period, "time after the start in which failures do not count",
           "0s");
  options.number("health-retries", values.health_retries, "N", "failures until the container is unhealthy").shows("3");
  options.text("health-on-failure", values.health.on_failure, "ACTION", "what happens when it becomes unhealthy")
      .one_of({"none", "kill", "restart", "stop"})
      .empty_means("none")
      .shows("none");
  options.text("health-startup-cmd", values.health_startup_cmd, "COMMAND",
               "command that is run instead until it has succeeded");
  duration("health-startup-interval", values.health.startup_interval, "time between two of these", "30s");
  duration("health-startup-timeout", values.health.startup_timeout, "time that one of these may take", "30s");
  options
      .number("health-startup-success", values.health.startup_success, "N", "successes until the container has started")
      .shows("1");
  options
      .number("health-startup-retries", values.health.startup_retries, "N",
              "failures until the container is started again")
      .shows("0: never");
  options
      .custom(
          "health-log-destination", Kind::text,
          [&health = values.health](const std::string& text) { health.log_destination = check_health_log(text); },
          "WHERE", "local, or a directory that gets a copy of the log")
      .shows("local")
      .complete(Complete::directory);
  options.number("health-max-log-count", values.health.max_log_count, "N", "probes that inspect shows; 0: all")
      .shows("5");
  options.number("health-max-log-size", values.health.max_log_size, "BYTES", "output kept of each; 0: all")
      .shows("500");
  options.flag("no-healthcheck", values.no_healthcheck, "ignore the health check of the image");
}

void add_run_options(OptionSet& options, RunOptions& values) {
  options.arguments("IMAGE [COMMAND [ARGUMENT...]]", 1, -1, Complete::image);
  options.stop_at_first_word();
  add_container_options(options, values);
  add_process_options(options, values);
  add_network_options(options, values);
  add_mount_options(options, values);
  add_resource_options(options, values);
  add_security_options(options, values);
  add_health_options(options, values);
  add_image_options(options, values);
}

std::string finish_run_options(RunOptions& values, const Strings& arguments, const Strings& command_line) {
  auto& config = values.config;
  std::string image = arguments.front();
  config.command.assign(arguments.begin() + 1, arguments.end());
  if (values.rootfs) {
    config.rootfs = std::move(image);
    image.clear();
  }
  if (config.hostname == "") config.hostname.reset();
  if (values.entrypoint) config.entrypoint = parse_entrypoint(*values.entrypoint);
  finish_environment(values);
  finish_health(values);
  config.platform = join_platform(config.platform, values.os, values.arch, values.variant);
  config.pull_policy = values.pull.policy;
  values.pull.platform = config.platform;
  values.pull.quiet = values.quiet;
  config.create_command = command_line;
  if (config.remove && config.restart_policy != "no") {
    throw_usage("--rm and --restart exclude each other: a container that is started again must stay");
  }
  finish_subid_names(values);
  if (values.replace && config.name.empty()) throw_usage("--replace needs --name");
  return image;
}

}  // namespace kelp::cli
