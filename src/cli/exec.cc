#include "engine/exec.h"

#include <fcntl.h>

#include <memory>

#include "base/error.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/container_select.h"
#include "cli/output.h"
#include "cli/run_values.h"
#include "store/containers.h"
#include "sys/lock.h"

namespace kelp::cli {
namespace {

struct ExecCommand {
  engine::ExecRequest request;
  Strings env, env_files;
  std::string cidfile;
  bool latest = false;
};

int exec(Invocation& invocation, ExecCommand& values) {
  for (int fd = 3; fd < 3 + static_cast<int>(values.request.preserve_fds); ++fd)
    if (::fcntl(fd, F_GETFD) < 0)
      throw_usage("--preserve-fds {}: descriptor {} is not open", values.request.preserve_fds, fd);
  for (const int fd : values.request.preserved)
    if (::fcntl(fd, F_GETFD) < 0) throw_usage("--preserve-fd {}: the descriptor is not open", fd);
  if (!values.cidfile.empty()) {
    if (values.latest) throw_usage("--cidfile and --latest exclude each other");
    const auto id = sys::read_small_file(values.cidfile, 4096);
    if (!id) throw_usage("--cidfile: there is no file {}", quoted(values.cidfile));
    Strings words{std::string(trim(*id))};
    words.insert(words.end(), invocation.arguments.begin(), invocation.arguments.end());
    invocation.arguments = std::move(words);
  }
  const auto record = take_container(invocation, values.latest);
  if (invocation.arguments.empty()) {
    throw UsageError("kelp exec needs a command to run", engine::kExitNoExec).with_hint("see 'kelp exec --help'");
  }
  if (invocation.arguments.front().empty()) throw UsageError("kelp exec: the command is empty", kExitNotFound);
  values.request.command = invocation.arguments;
  StringMap env;
  const StringMap host = values.env.empty() && values.env_files.empty() ? StringMap{} : host_environment();
  for (const auto& path : values.env_files) {
    const auto text = sys::read_small_file(path, 4U << 20U);
    if (!text) throw_usage("--env-file: there is no file {}", quoted(path));
    apply_env_file(env, *text, path, host);
  }
  for (const auto& text : values.env) apply_env(env, text, host);
  values.request.env = env_list(env);
  values.request.id = store::new_container_id();
  const int code = engine::exec_in_container(invocation.context, record, values.request);
  if (values.request.detach && code == 0) print_line(values.request.id);
  return code;
}

}  // namespace

Action define_exec(OptionSet& options) {
  auto values = std::make_shared<ExecCommand>();
  auto& request = values->request;
  options.arguments("CONTAINER COMMAND [ARGUMENT...]", 0, -1, Complete::running);
  options.stop_at_first_word();
  options.flag("interactive,i", request.interactive, "connect standard input");
  options.flag("tty,t", request.tty, "give the process a terminal");
  options.flag("detach,d", request.detach, "run in the background");
  options.list("env,e", values->env, "NAME[=VALUE]", "environment variable; a bare name or PRE* takes the host's")
      .complete(Complete::environment);
  options.list("env-file", values->env_files, "FILE", "read environment variables from a file")
      .complete(Complete::file);
  options.text("user,u", request.user, "USER[:GROUP]", "user and group of the process").complete(Complete::user);
  options.text("workdir,w", request.workdir, "DIR", "working directory inside the container");
  options.flag("privileged", request.privileged, "give the process all capabilities");
  options.number("preserve-fds", request.preserve_fds, "N", "pass N descriptors, from 3 on");
  options.custom(
      "preserve-fd", Kind::csv,
      [&request](const std::string& text) {
        for (const auto& word : split_csv(text, "--preserve-fd")) {
          const auto fd = to_int(word, 3, 1000);
          if (!fd) throw_usage("--preserve-fd {}: descriptors from 3 on are possible", quoted(text));
          request.preserved.push_back(static_cast<int>(*fd));
        }
      },
      "N", "pass this descriptor");
  options
      .custom(
          "detach-keys", Kind::text,
          [&request](const std::string& text) { request.detach_keys = check_detach_keys(text); }, "KEYS",
          "keys that leave the process running")
      .shows("ctrl-p,ctrl-q");
  // What it asks for is how exec works here; the contrary cannot be had.
  options.custom(
      "no-session", Kind::flag,
      [](const std::string& text) {
        if (!*to_bool(text)) throw_usage("--no-session={}: no record of an exec is ever kept", text);
      },
      "", "keep no record of the process, as always");
  options.text("cidfile", values->cidfile, "FILE", "take the container's ID from a file").complete(Complete::file);
  add_latest(options, values->latest);
  return [values](Invocation& invocation) { return exec(invocation, *values); };
}

}  // namespace kelp::cli
