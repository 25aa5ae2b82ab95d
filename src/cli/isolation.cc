#include "engine/isolation.h"

#include <memory>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/command_actions.h"
#include "cli/container_select.h"
#include "cli/output.h"
#include "store/containers.h"

namespace kelp::cli {
namespace {

struct IsolationCommand {
  ContainerChoice choice;
  std::string format;
};

int isolation(Invocation& invocation, const IsolationCommand& values) {
  ContainerSelection selection(invocation, values.choice, "the name or ID of a container");
  Json reports = Json::array();
  const int code = selection.for_each([&](const Chosen& chosen) {
    // --all means those of which there is something to tell.
    if (values.choice.all && store::status(invocation.context.layout, chosen.record).status == store::Status::created)
      return;
    reports.push_back(engine::isolation_of(invocation.context, chosen.record));
  });
  print(render_objects(values.format, reports));
  if (code != 0) return code;
  for (const auto& report : reports)
    if (!report["Deviations"].empty()) return 1;
  return 0;
}

}  // namespace

Action define_isolation(OptionSet& options) {
  auto values = std::make_shared<IsolationCommand>();
  options.arguments("CONTAINER...", 0, -1, Complete::container);
  options.flag("all,a", values->choice.all, "all containers");
  add_latest(options, values->choice.latest);
  options.text("format,f", values->format, "FORMAT", "json, or a Go template for each container");
  options.describe(
      "Shows what a container can see (namespaces), use (limits) and touch (user, capabilities, system calls, mounts, "
      "devices, ports), and where it is looser than --hardened makes it. Exits with 1 when it is so anywhere.",
      "kelp isolation web\nkelp isolation --all --format '{{.Name}}: {{len .Deviations}}'");
  return [values](Invocation& invocation) { return isolation(invocation, *values); };
}

}  // namespace kelp::cli
