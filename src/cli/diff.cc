#include "engine/diff.h"

#include <memory>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/container_select.h"
#include "cli/output.h"
#include "store/containers.h"
#include "store/images.h"

namespace kelp::cli {
namespace {

struct DiffCommand {
  bool latest = false;
  std::string format;
};

std::vector<engine::Change> changes_of(Invocation& invocation, bool latest, bool images) {
  const auto& layout = invocation.context.layout;
  if (latest) return engine::diff_container(invocation.context, latest_container(invocation));
  if (invocation.arguments.empty())
    throw UsageError(fmt::format("{} needs the name of a container or an image", invocation.command));
  const std::string& word = invocation.arguments.front();
  if (const auto record = store::find(layout, word)) return engine::diff_container(invocation.context, *record);
  if (images)
    if (const auto image = store::find_image(layout, word)) return engine::diff_image(invocation.context, *image);
  if (!images) store::get(layout, word);  // says that there is none
  throw_usage("{} is neither a container nor an image", kelp::quoted(word));
}

int diff(Invocation& invocation, const DiffCommand& values, bool images) {
  if (!values.format.empty() && values.format != "json") throw_usage("--format: only json is possible");
  if (values.latest && !invocation.arguments.empty()) throw_usage("--latest and names exclude each other");
  const auto changes = changes_of(invocation, values.latest, images);
  if (values.format == "json") {
    Json json = Json::object();
    for (const auto& change : changes)
      json[change.kind == 'A' ? "added" : change.kind == 'C' ? "changed" : "deleted"].push_back(change.path);
    print(pretty_json(json));
    return 0;
  }
  std::string text;
  for (const auto& change : changes) text += fmt::format("{} {}\n", change.kind, printable(change.path));
  print(text);
  return 0;
}

Action define(OptionSet& options, bool images) {
  auto values = std::make_shared<DiffCommand>();
  options.arguments(images ? "CONTAINER|IMAGE" : "CONTAINER", 0, 1, Complete::container);
  options.text("format", values->format, "FORMAT", "json").one_of({"json"});
  add_latest(options, values->latest);
  options.describe("A: added, C: changed, D: deleted.");
  return [values, images](Invocation& invocation) { return diff(invocation, *values, images); };
}

}  // namespace

Action define_diff(OptionSet& options) { return define(options, true); }
Action define_container_diff(OptionSet& options) { return define(options, false); }

}  // namespace kelp::cli
