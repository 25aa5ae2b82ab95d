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

/// What the names of a command may mean.
enum class Names { all, containers, images };

struct DiffCommand {
  Names names = Names::all;
  bool latest = false;
  std::string format;
};

engine::DiffSide side_of(Invocation& invocation, const std::string& word, Names names) {
  const auto& layout = invocation.context.layout;
  if (names == Names::images) return {.container = std::nullopt, .image = store::require_image(layout, word)};
  if (names == Names::containers) return {.container = store::get(layout, word), .image = std::nullopt};
  // The name of an image comes before that of a container, as podman has it; the beginning of an id does not.
  auto image = store::find_image(layout, word);
  if (!image || starts_with(image->id, word))
    if (auto container = store::find(layout, word)) return {.container = std::move(container), .image = std::nullopt};
  if (!image) throw_usage("{} is neither a container nor an image", kelp::quoted(word));
  return {.container = std::nullopt, .image = std::move(image)};
}

std::vector<engine::Change> changes_of(Invocation& invocation, const DiffCommand& values) {
  if (values.latest) return engine::diff_container(invocation.context, latest_container(invocation));
  if (invocation.arguments.empty())
    throw UsageError(fmt::format("{} needs the name of {}", invocation.command,
                                 values.names == Names::all          ? "a container or an image"
                                 : values.names == Names::containers ? "a container"
                                                                     : "an image"));
  const auto newer = side_of(invocation, invocation.arguments[0], values.names);
  if (invocation.arguments.size() > 1)
    return engine::diff_between(invocation.context, newer, side_of(invocation, invocation.arguments[1], values.names));
  return newer.container ? engine::diff_container(invocation.context, *newer.container)
                         : engine::diff_image(invocation.context, *newer.image);
}

int diff(Invocation& invocation, const DiffCommand& values) {
  if (!values.format.empty() && values.format != "json") throw_usage("--format: only json is possible");
  if (values.latest && !invocation.arguments.empty()) throw_usage("--latest and names exclude each other");
  const auto changes = changes_of(invocation, values);
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

Action define(OptionSet& options, Names names) {
  auto values = std::make_shared<DiffCommand>();
  values->names = names;
  const char* usage = names == Names::all          ? "CONTAINER|IMAGE [CONTAINER|IMAGE]"
                      : names == Names::containers ? "CONTAINER [CONTAINER]"
                                                   : "IMAGE [IMAGE]";
  options.arguments(usage, 0, 2,
                    names == Names::all          ? Complete::tree
                    : names == Names::containers ? Complete::container
                                                 : Complete::image);
  options.text("format", values->format, "FORMAT", "json").one_of({"json"});
  if (names != Names::images) add_latest(options, values->latest);
  options.describe(
      "A: added, C: changed, D: deleted. With two names: what the first has that the second has not, and so on.",
      names == Names::all ? "kelp diff web\nkelp diff web docker.io/library/nginx:1.27" : "");
  return [values](Invocation& invocation) { return diff(invocation, *values); };
}

}  // namespace

Action define_diff(OptionSet& options) { return define(options, Names::all); }
Action define_container_diff(OptionSet& options) { return define(options, Names::containers); }
Action define_image_diff(OptionSet& options) { return define(options, Names::images); }

}  // namespace kelp::cli
