#include <memory>

#include <fmt/format.h>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "engine/import_store.h"

namespace kelp::cli {
namespace {

struct ImportCommand {
  std::string store;
  bool quiet = false;
};

int import(Invocation& invocation, const ImportCommand& values) {
  const std::string& owner = invocation.arguments[0];
  if (owner != "podman" && owner != "docker")
    throw_usage("{}: the stores of podman and docker can be brought over", kelp::quoted(owner));
  ProgressView progress(values.quiet || !stderr_is_terminal());
  const auto report = engine::import_store(invocation.context, owner, values.store, progress.callback());
  progress.finish();
  std::string out;
  for (const auto& name : report.images.names) out += "image " + printable(name) + "\n";
  for (const auto& name : report.volumes) out += "volume " + printable(name) + "\n";
  for (const auto& name : report.kept) out += "volume " + printable(name) + ": kept as it is here\n";
  if (report.images.nameless > 0 && !values.quiet)
    out += fmt::format("{} images without a name were left in {}\n", report.images.nameless,
                       printable(report.images.root));
  print(out);
  for (const auto& failure : report.failures) log::error("{}", failure);
  if (!report.failures.empty())
    throw_error("{} of {} images and volumes could not be brought over", report.failures.size(),
                report.failures.size() + report.images.names.size() + report.volumes.size() + report.kept.size());
  return 0;
}

}  // namespace

Action define_system_import(OptionSet& options) {
  auto values = std::make_shared<ImportCommand>();
  options.arguments("podman|docker", 1, 1);
  options.text("store", values->store, "DIRECTORY", "where that store is, when not in its usual place")
      .complete(Complete::directory);
  options.flag("quiet,q", values->quiet, "do not show the progress");
  options.describe(
      "Copies the named images and volumes of podman or Docker, which keep what they have. "
      "Volumes that are here already stay as they are.");
  return [values](Invocation& invocation) { return import(invocation, *values); };
}

}  // namespace kelp::cli
