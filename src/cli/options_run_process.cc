#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "cli/options_run.h"
#include "sys/procfs.h"

namespace kelp::cli {

void add_process_options(OptionSet& options, RunOptions& values) {
  auto& config = values.config;
  options.group("Process");
  options.flag("interactive,i", config.interactive, "keep standard input open");
  options.flag("tty,t", config.tty, "give the process a terminal");
  options.list("env,e", values.env, "NAME[=VALUE]", "environment variable; a bare name or PRE* takes the host's")
      .complete(Complete::environment);
  options.csv("env-file", values.env_files, "FILE", "read environment variables from a file").complete(Complete::file);
  options.custom(
      "env-merge", Kind::map,
      [&config](const std::string& text) {
        const size_t equals = text.find('=');
        if (equals == 0) throw_usage("--env-merge {}: the name of the variable is missing", quoted(text));
        if (!text.empty()) config.env_merge.push_back(equals == std::string::npos ? text + "=" : text);
      },
      "NAME=VALUE", "change a variable of the image: PATH=${PATH}:/more");
  options.flag("env-host", values.env_host, "pass the whole environment of the caller");
  options.list("unsetenv", config.unset_env, "NAME", "leave out a variable of the image");
  options.flag("unsetenv-all", config.unset_env_all, "leave out all variables of the image");
  options.flag("http-proxy", config.http_proxy, "pass the proxy variables of the caller").shows("true");
  options.text("workdir,w", config.workdir, "DIR", "working directory inside the container");
  options.text("user,u", config.user, "USER[:GROUP]", "user and group of the process, by name or number")
      .complete(Complete::user);
  options.csv("group-add", config.group_add, "GROUP", "further group of the process").complete(Complete::group);
  options.text("entrypoint", values.entrypoint, "COMMAND", "instead of the image's entrypoint; \"\": none");
  options.flag("init", config.init, "run a small init as PID 1 that reaps and passes signals on");
  options.text("init-path", config.init_path, "FILE", "program for --init").complete(Complete::file);
  options.text("stop-signal", config.stop_signal, "SIGNAL", "signal that asks the process to end")
      .complete(Complete::signal);
  options.number("stop-timeout", config.stop_timeout, "SECONDS", "time between that signal and SIGKILL").shows("10");
  options.number("timeout", config.timeout, "SECONDS", "kill the container after that time").shows("0: never");
  options.csv(
      "ulimit",
      [&config](const std::string& text) {
        if (text == "host") {
          const auto given = std::exchange(config.ulimits, parse_limits_file(sys::read_file("/proc/self/limits")));
          for (const auto& limit : given) add_ulimit(config.ulimits, limit);
        } else {
          add_ulimit(config.ulimits, parse_ulimit(text));
        }
      },
      "NAME=SOFT[:HARD]", "resource limit; host: the caller's");
  options.text("umask", config.umask, "MASK", "file mode mask of the process").shows("0022");
  options.text("tz", config.timezone, "ZONE", "time zone; local: the host's").also("timezone");
  options.number("oom-score-adj", config.resources.oom_score_adj, "N", "preference of the OOM killer, -1000 to 1000");
  options.text("systemd", config.systemd, "MODE", "prepare for systemd as PID 1; true: when that is the command")
      .one_of({"true", "false", "always"})
      .empty_means("true")
      .also_spelled([](const std::string& text) { return to_lower(text); })
      .shows("true");
  options.flag("passwd", config.passwd, "give a user that the image does not know a line in /etc/passwd").shows("true");
  const auto line = [&options](const char* name, Strings& lines, const char* help) {
    options.custom(
        name, Kind::list,
        [&lines](const std::string& text) {
          if (!text.empty()) lines.push_back(text);
        },
        "LINE", help);
  };
  line("passwd-entry", config.passwd_entries, "line for /etc/passwd of the container");
  line("group-entry", config.group_entries, "line for /etc/group of the container");
  options.number("preserve-fds", config.preserve_fds, "N", "pass N descriptors, from 3 on");
}

}  // namespace kelp::cli
