#include <memory>

#include "base/error.h"
#include "base/log.h"
#include "cli/command_actions.h"
#include "cli/options_run.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "engine/images.h"
#include "store/images.h"

namespace kelp::cli {
namespace {

struct PullCommand {
  engine::PullOptions pull;
  std::string os, arch, variant;
};

int pull(Invocation& invocation, PullCommand& values) {
  values.pull.platform = join_platform(values.pull.platform, values.os, values.arch, values.variant);
  std::vector<Error> failures;
  for (const auto& name : invocation.arguments) {
    try {
      ProgressView progress(values.pull.quiet);
      const auto images = engine::pull_image(invocation.context, name, values.pull, progress.callback());
      progress.finish();
      for (const auto& image : images) print_line(image.id.empty() ? image.digest : image.id);
    } catch (const Error& error) {
      failures.push_back(error);
    }
  }
  for (size_t i = 0; i + 1 < failures.size(); ++i) log::error("{}", failures[i].what());
  if (!failures.empty()) throw failures.back();
  return 0;
}

}  // namespace

Action define_pull(OptionSet& options) {
  auto values = std::make_shared<PullCommand>();
  values->pull.policy = "always";
  values->pull.artifacts = true;
  options.arguments("IMAGE...", 1, -1, Complete::image);
  options.flag("all-tags,a", values->pull.all_tags, "all tags of the repository");
  options.flag("quiet,q", values->pull.quiet, "do not show the progress");
  options.text("policy", values->pull.policy, "POLICY", "when to ask the registry")
      .one_of({"always", "missing", "never", "newer"})
      .empty_means("missing")
      .also_spelled(pull_policy)
      .shows("always");
  add_platform_options(options, values->pull.platform, values->os, values->arch, values->variant);
  add_registry_options(options, values->pull);
  options.describe(
      "IMAGE is a name in a registry, or containers-storage:NAME (podman's own store), "
      "oci:, oci-archive:, docker-archive: or dir: with a path. An artifact that is no image is kept as it is.");
  return [values](Invocation& invocation) { return pull(invocation, *values); };
}

}  // namespace kelp::cli
