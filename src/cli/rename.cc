#include "cli/command_actions.h"
#include "engine/create.h"
#include "store/containers.h"

namespace kelp::cli {

Action define_rename(OptionSet& options) {
  options.arguments("CONTAINER NAME", 2, 2, Complete::container);
  return [](Invocation& invocation) {
    const auto record = store::get(invocation.context.layout, invocation.arguments[0]);
    if (record.name == invocation.arguments[1]) return 0;
    engine::rename_container(invocation.context, record, invocation.arguments[1]);
    return 0;
  };
}

}  // namespace kelp::cli
