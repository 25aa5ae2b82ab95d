#include "runtime/commands/commands.h"
#include "runtime/commands/print.h"
#include "runtime/container.h"

namespace kelp::runtime {
namespace {

int state(const Call& call) {
  const Container container = Container::open(call.global.root, call.words[0]);
  print(spec::print_state(container.state(container.read()), true));
  return 0;
}

}  // namespace

const Command kState = {"state", "ID", "print the state of a container as JSON", {}, state, 1, 1};

}  // namespace kelp::runtime
