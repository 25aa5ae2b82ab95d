#include "engine/run.h"

#include <algorithm>
#include <memory>

#include "base/error.h"
#include "cli/command_actions.h"
#include "cli/container_select.h"
#include "cli/output.h"
#include "cli/run_values.h"
#include "engine/attach.h"
#include "engine/stop.h"
#include "store/containers.h"

namespace kelp::cli {
namespace {

struct StartCommand {
  ContainerChoice choice;
  bool attach = false, interactive = false;
  std::optional<bool> sig_proxy;
  std::optional<std::string> detach_keys;
};

int start_attached(Invocation& invocation, const StartCommand& values, const store::ContainerRecord& record) {
  engine::StartOptions start;
  start.foreground = true;
  const auto& wanted = record.config.attach;
  const auto attaches = [&wanted](const char* stream) {
    return wanted.empty() || std::find(wanted.begin(), wanted.end(), stream) != wanted.end();
  };
  start.attach_stdout = attaches("stdout");
  start.attach_stderr = attaches("stderr");
  start.attach_stdin = values.interactive && record.config.interactive;
  start.sig_proxy = values.sig_proxy.value_or(true);
  start.detach_keys = values.detach_keys.value_or(record.config.detach_keys);
  const auto status = store::status(invocation.context.layout, record);
  if (status.status == store::Status::running) {
    engine::AttachOptions attach;
    attach.stdin_open = start.attach_stdin;
    attach.sig_proxy = start.sig_proxy;
    attach.detach_keys = start.detach_keys;
    return engine::attach_container(invocation.context, record, attach);
  }
  return engine::start_container(invocation.context, record, start).exit_code;
}

/// podman has 126 and 127 for `run` alone: these say of a start that it failed, whatever the reason.
template <typename Fn>
void start_or_fail(Fn&& start) {
  try {
    start();
  } catch (Error& error) {
    error.with_exit_code(kExitFailure);
    throw;
  }
}

int start(Invocation& invocation, const StartCommand& values) {
  ContainerSelection selection(invocation, values.choice, "the name or ID of a container");
  const bool attached = values.attach || values.interactive;
  if (attached && (values.choice.all || selection.chosen().size() > 1)) {
    throw_usage("only one container can be started with --attach or --interactive");
  }
  if (values.sig_proxy.value_or(false) && !attached) throw_usage("--sig-proxy needs --attach");
  int exit_code = 0;
  const int failed = selection.for_each([&](const Chosen& chosen) {
    if (attached) {
      start_or_fail([&] { exit_code = start_attached(invocation, values, chosen.record); });
      return;
    }
    const auto status = store::status(invocation.context.layout, chosen.record);
    if (status.status != store::Status::running)
      start_or_fail([&] { engine::start_container(invocation.context, chosen.record, {}); });
    if (!values.choice.all || status.status != store::Status::running) print_line(chosen.word);
  });
  return failed != 0 ? failed : exit_code;
}

struct RestartCommand {
  ContainerChoice choice;
  std::optional<unsigned> time;
};

}  // namespace

Action define_start(OptionSet& options) {
  auto values = std::make_shared<StartCommand>();
  options.arguments("CONTAINER...", 0, -1, Complete::stopped);
  options.flag("attach,a", values->attach, "connect to the output and wait for the end");
  options.flag("interactive,i", values->interactive, "connect standard input too");
  options.flag("sig-proxy", values->sig_proxy, "pass signals on to the process").shows("true with --attach");
  options.custom(
      "detach-keys", Kind::text,
      [values = values.get()](const std::string& text) { values->detach_keys = check_detach_keys(text); }, "KEYS",
      "keys that leave the container running");
  options.flag("all", values->choice.all, "all containers");
  add_latest(options, values->choice.latest);
  options.list("filter,f", values->choice.filters, "KEY=VALUE", "containers that fit, as in ps");
  return [values](Invocation& invocation) { return start(invocation, *values); };
}

Action define_init(OptionSet& options) {
  auto choice = std::make_shared<ContainerChoice>();
  options.arguments("CONTAINER...", 0, -1, Complete::stopped);
  options.describe(
      "Namespaces, mounts, network and control group are made, and the container waits: its files can be looked at "
      "and\n"
      "changed (kelp cp, kelp mount) before kelp start executes the command.");
  options.flag("all,a", choice->all, "all containers that are not running");
  add_latest(options, choice->latest);
  return [choice](Invocation& invocation) {
    ContainerSelection selection(invocation, *choice, "the name or ID of a container");
    return selection.for_each([&](const Chosen& chosen) {
      const auto status = store::status(invocation.context.layout, chosen.record).status;
      if (choice->all && status != store::Status::created && status != store::Status::exited) return;
      engine::StartOptions start;
      start.init_only = true;
      start_or_fail([&] { engine::start_container(invocation.context, chosen.record, start); });
      print_line(chosen.word);
    });
  };
}

Action define_restart(OptionSet& options) {
  auto values = std::make_shared<RestartCommand>();
  options.arguments("CONTAINER...", 0, -1, Complete::container);
  options.number("time,t", values->time, "SECONDS", "time between the stop signal and SIGKILL").shows("10");
  ContainerChoiceOptions which;
  which.running = true;
  add_container_choice(options, values->choice, which);
  return [values](Invocation& invocation) {
    ContainerSelection selection(invocation, values->choice, "the name or ID of a container");
    return selection.for_each([&](const Chosen& chosen) {
      start_or_fail([&] { engine::restart_container(invocation.context, chosen.record, values->time); });
      print_line(chosen.word);
    });
  };
}

}  // namespace kelp::cli
