#include <fcntl.h>
#include <unistd.h>

#include "base/error.h"
#include "base/owned.h"
#include "runtime/commands/commands.h"
#include "runtime/container.h"
#include "runtime/create.h"
#include "runtime/start_gate.h"

namespace kelp::runtime {
namespace {

constexpr int kLockTimeoutMs = 10'000;

/// The program of the first process: a sealed copy of ours in memory (sealed_self.h), of which nobody else is left. The
/// last to let go of it is held up while the kernel frees it, which is not to be the payload: poststart hooks, which
/// are to follow it, would overtake it. Invalid where we may not look there.
Fd hold_program(pid_t first) { return Fd(::open(fmt::format("/proc/{}/exe", first).c_str(), O_PATH | O_CLOEXEC)); }

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
  const Fd program = config.hooks.poststart.empty() ? Fd() : hold_program(record.pid);
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
