#include "base/error.h"
#include "cgroup/cgroup.h"
#include "runtime/commands/commands.h"
#include "runtime/container.h"

namespace kelp::runtime {
namespace {

Record record_of(const Call& call, const char* verb) {
  const Container container = Container::open(call.global.root, call.words[0]);
  Record record = container.require();
  const Status status = container.status(record);
  const bool running = status == Status::running || status == Status::created || status == Status::paused;
  if (!running) throw_error("cannot {} a container that is not running: {}", verb, status_name(status));
  if (record.cgroup.empty())
    throw Error(fmt::format("cannot {} the container: it has no cgroup of its own", verb))
        .with_hint("it needs a cgroup v2 group delegated to the caller when the container is created");
  return record;
}

int pause(const Call& call) {
  cgroup::freeze(record_of(call, "pause").cgroup, true);
  return 0;
}

int resume(const Call& call) {
  const Record record = record_of(call, "resume");
  if (!cgroup::frozen(record.cgroup)) throw_error("container not paused");
  cgroup::freeze(record.cgroup, false);
  return 0;
}

}  // namespace

const Command kPause = {"pause", "ID", "stop all processes of a container", {}, pause, 1, 1};
const Command kResume = {"resume", "ID", "let a paused container go on", {}, resume, 1, 1};

}  // namespace kelp::runtime
