#include "engine/health.h"

#include "cli/command_actions.h"
#include "cli/container_select.h"
#include "cli/output.h"

namespace kelp::cli {

Action define_healthcheck_run(OptionSet& options) {
  options.arguments("CONTAINER", 1, 1, Complete::running);
  return [](Invocation& invocation) {
    const auto record = take_container(invocation, false);
    if (engine::run_health_check(invocation.context, record)) return 0;
    print_line("unhealthy");
    return 1;
  };
}

}  // namespace kelp::cli
