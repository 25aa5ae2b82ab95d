#include <unistd.h>

#include "base/error.h"
#include "runtime/commands/commands.h"
#include "runtime/container.h"
#include "runtime/create.h"
#include "runtime/start_gate.h"

namespace kelp::runtime {
namespace {

constexpr int kLockTimeoutMs = 10'000;

int start(const Call& call) {
  Container container = Container::open(call.global.root, call.words[0]);
  if (!container.lock(kLockTimeoutMs)) throw_error("container {} is in use by another command", container.id());
  const Record record = container.require();
  switch (container.status(record)) {
    case Status::created:
      break;
    case Status::stopped:
      throw_error("cannot start a container that has stopped");
    default:
      throw_error("cannot start an already running container");
  }
  const spec::RuntimeConfig config = container.config();
  ParentLink link = open_gate(container.dir());
  link.go();
  serve_until_exec(link, container.state(record), config.linux_.seccomp ? &*config.linux_.seccomp : nullptr);
  ::unlinkat(container.dir(), "gate", 0);
  container.unlock();
  if (!config.hooks.poststart.empty()) run_poststart(container, record, config.hooks);
  return 0;
}

}  // namespace

const Command kStart = {"start", "ID", "start the program of a created container", {}, start, 1, 1};

}  // namespace kelp::runtime
