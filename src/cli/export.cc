#include <memory>

#include "base/error.h"
#include "cli/command_actions.h"
#include "cli/output.h"
#include "engine/export.h"
#include "store/containers.h"

namespace kelp::cli {

Action define_export(OptionSet& options) {
  auto output = std::make_shared<std::string>();
  options.arguments("CONTAINER", 1, 1, Complete::container);
  options.text("output,o", *output, "FILE", "where to write").complete(Complete::file).shows("standard output");
  return [output](Invocation& invocation) {
    const auto record = store::get(invocation.context.layout, invocation.arguments[0]);
    if (output->empty() && stdout_is_terminal()) {
      throw UsageError("an archive is not written to a terminal").with_hint("kelp export --output FILE CONTAINER");
    }
    engine::export_container(invocation.context, record, *output);
    return 0;
  };
}

}  // namespace kelp::cli
