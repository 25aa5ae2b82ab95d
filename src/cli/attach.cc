#include "engine/attach.h"

#include <memory>

#include "base/error.h"
#include "cli/command_actions.h"
#include "cli/container_select.h"
#include "cli/output.h"
#include "cli/run_values.h"
#include "store/containers.h"

namespace kelp::cli {
namespace {

struct AttachCommand {
  engine::AttachOptions attach;
  std::optional<std::string> detach_keys;
  bool no_stdin = false, latest = false;
};

int attach(Invocation& invocation, AttachCommand& values) {
  const auto record = take_container(invocation, values.latest);
  if (!invocation.arguments.empty()) throw_usage("kelp attach takes one container");
  const auto status = store::status(invocation.context.layout, record);
  if (status.status != store::Status::running) {
    throw UsageError(fmt::format("container {} is {}: you can only attach to running containers", record.name,
                                 store::status_name(status.status)))
        .with_hint(fmt::format("kelp start --attach {}", record.name));
  }
  values.attach.stdin_open = !values.no_stdin && record.config.interactive;
  values.attach.detach_keys = values.detach_keys.value_or(record.config.detach_keys);
  // The container's exit status is for `wait`: scripts know attach to succeed, and to end its output with a newline.
  engine::attach_container(invocation.context, record, values.attach);
  print("\n");
  return 0;
}

}  // namespace

Action define_attach(OptionSet& options) {
  auto values = std::make_shared<AttachCommand>();
  options.arguments("CONTAINER", 0, 1, Complete::running);
  options.flag("no-stdin", values->no_stdin, "do not connect standard input");
  options.flag("sig-proxy", values->attach.sig_proxy, "pass signals on to the process").shows("true");
  options
      .custom(
          "detach-keys", Kind::text,
          [values = values.get()](const std::string& text) { values->detach_keys = check_detach_keys(text); }, "KEYS",
          "keys that leave the container running")
      .shows("ctrl-p,ctrl-q");
  add_latest(options, values->latest);
  return [values](Invocation& invocation) { return attach(invocation, *values); };
}

}  // namespace kelp::cli
