#include <array>

#include "base/error.h"
#include "base/text.h"
#include "runtime/commands/commands.h"
#include "runtime/container.h"
#include "runtime/create.h"
#include "runtime/processes.h"

namespace kelp::runtime {
namespace {

constexpr std::array kOptions = {
    OptionSpec{"force", 'f', nullptr, "kill it when it runs; no error when it does not exist"},
};
constexpr int kLockTimeoutMs = 10'000;

int remove(const Call& call) {
  const bool force = call.options.flag("force");
  std::optional<Container> container = Container::find(call.global.root, call.words[0]);
  if (!container) {
    if (force) return 0;
    throw_usage("container {} does not exist", quoted(call.words[0]));
  }
  const std::optional<Record> record = container->read();
  const Status status = container->status(record);
  if (status != Status::stopped && !force)
    throw Error(fmt::format("cannot delete container {} that is not stopped: {}", container->id(), status_name(status)))
        .with_hint("stop it first, or use --force");
  if (record && status != Status::stopped) kill_container(*container, *record);
  // Whoever creates or starts it sees its process die and gives up the lock.
  if (!container->lock(kLockTimeoutMs)) {
    if (!Container::find(call.global.root, call.words[0])) return 0;
    throw_error("container {} is in use by another command", container->id());
  }
  destroy_container(*container);
  return 0;
}

}  // namespace

const Command kDelete = {"delete", "ID", "remove what is left of a stopped container", kOptions, remove, 1, 1};

}  // namespace kelp::runtime
