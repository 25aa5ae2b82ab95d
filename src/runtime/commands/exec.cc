#include "runtime/exec.h"

#include <fcntl.h>

#include <array>

#include "base/error.h"
#include "base/text.h"
#include "runtime/commands/commands.h"

namespace kelp::runtime {
namespace {

constexpr std::array kOptions = {
    OptionSpec{"process", 'p', "FILE", "process object (JSON) to run"},
    OptionSpec{"console-socket", 0, "PATH", "unix socket that gets the terminal's master"},
    OptionSpec{"pid-file", 0, "FILE", "write the process' id there"},
    OptionSpec{"pidfd-socket", 0, "PATH", "unix socket that gets a pidfd of the process"},
    OptionSpec{"detach", 'd', nullptr, "do not wait for its end"},
    OptionSpec{"started-fd", 0, "N", "say \"s\" there when the command runs", true},
    OptionSpec{"tty", 't', nullptr, "give it a terminal"},
    OptionSpec{"env", 'e', "NAME=VALUE", "set an environment variable"},
    OptionSpec{"user", 'u', "UID[:GID]", "user in the container"},
    OptionSpec{"additional-gids", 'g', "GID", "supplementary group"},
    OptionSpec{"cwd", 0, "DIR", "working directory in the container"},
    OptionSpec{"cap", 'c', "CAP", "add a capability"},
    OptionSpec{"no-new-privs", 0, nullptr, "set no_new_privs"},
    OptionSpec{"apparmor", 0, "PROFILE", "AppArmor profile"},
    OptionSpec{"process-label", 0, "LABEL", "SELinux label"},
    OptionSpec{"preserve-fds", 0, "N", "pass N descriptors after stdio"},
    OptionSpec{"cgroup", 0, "PATH", "group below the container's"},
    OptionSpec{"ignore-paused", 0, nullptr, "also in a paused container"},
    OptionSpec{"no-subreaper", 0, nullptr, "has no effect: kelp-oci is never a subreaper here", true},
};

int exec(const Call& call) {
  ExecOptions options;
  options.root = call.global.root;
  options.id = call.words[0];
  options.process_file = call.options.value("process");
  options.args.assign(call.words.begin() + 1, call.words.end());
  if (!options.args.empty() && options.args[0] == "--") options.args.erase(options.args.begin());
  options.env = call.options.all("env");
  options.caps = call.options.all("cap");
  for (const std::string& gid : call.options.all("additional-gids")) {
    const auto number = to_int(gid, 0, UINT32_MAX - 1);
    if (!number) throw_usage("option --additional-gids: {} is no group id", quoted(gid));
    options.additional_gids.push_back(static_cast<std::uint32_t>(*number));
  }
  options.cwd = call.options.value("cwd");
  options.user = call.options.value("user");
  options.apparmor_profile = call.options.value("apparmor");
  options.process_label = call.options.value("process-label");
  if (call.options.has("tty")) options.tty = call.options.flag("tty");
  options.no_new_privs = call.options.flag("no-new-privs");
  options.ignore_paused = call.options.flag("ignore-paused");
  options.cgroup = call.options.value("cgroup");
  options.console_socket = call.options.value("console-socket");
  options.pidfd_socket = call.options.value("pidfd-socket");
  options.pid_file = call.options.value("pid-file");
  options.preserve_fds = call.options.number("preserve-fds", 0, 0, 1000);
  options.detach = call.options.flag("detach");
  options.started_fd = call.options.number("started-fd", -1, 3, 1 << 20);
  if (options.started_fd >= 0 && ::fcntl(options.started_fd, F_SETFD, FD_CLOEXEC) < 0)
    throw_usage("--started-fd {}: this descriptor is not open", options.started_fd);
  return exec_in_container(options);
}

}  // namespace

const Command kExec = {
    "exec", "ID [COMMAND [ARGUMENT…]]", "run another process in a container", kOptions, exec, 1, 10'000, true};

}  // namespace kelp::runtime
