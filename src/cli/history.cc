#include <memory>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/output.h"
#include "store/images.h"
#include "store/layers.h"

namespace kelp::cli {
namespace {

struct HistoryCommand {
  bool human = true, no_trunc = false, quiet = false;
  std::string format;
};

std::string created_text(const std::string& created, bool human) {
  if (created.empty()) return "";
  try {
    const auto time = parse_rfc3339(created);
    return human ? age(time) : format_rfc3339(time);
  } catch (const Error&) {
    return created;
  }
}

/// Newest step first; the first line carries the image's ID.
int history(Invocation& invocation, const HistoryCommand& values) {
  const auto image = store::require_image(invocation.context.layout, invocation.arguments[0]);
  const auto config = store::read_image_config(invocation.context.layout, image);
  Json rows = Json::array(), json = Json::array();
  size_t layer = image.layers.size();
  for (size_t i = config.history.size(); i-- > 0;) {
    const auto& entry = config.history[i];
    std::uint64_t size = 0;
    if (!entry.empty_layer && layer > 0) {
      const auto& content = image.layers[--layer];
      size = store::layer_size(invocation.context.layout, content.chain).value_or(content.size);
    }
    const bool newest = i + 1 == config.history.size();
    Json row;
    row["ID"] = newest ? (values.no_trunc ? image.id : image.id.substr(0, 12)) : "<missing>";
    row["Created"] = created_text(entry.created, values.human);
    row["CreatedAt"] = entry.created;
    row["CreatedSince"] = created_text(entry.created, true);
    row["CreatedBy"] = values.no_trunc ? entry.created_by : shorten(entry.created_by, 45);
    row["Size"] = values.human ? human_size(size) : fmt::format("{}", size);
    row["Comment"] = entry.comment;
    row["Tags"] = newest ? Json(image.names) : Json::array();
    rows.push_back(std::move(row));
    json.push_back({{"id", newest ? image.id : "<missing>"},
                    {"created", entry.created},
                    {"Created", entry.created},
                    {"CreatedBy", entry.created_by},
                    {"size", size}});
    if (!entry.comment.empty()) json.back()["comment"] = entry.comment;
    if (newest && !image.names.empty()) json.back()["tags"] = image.names;
  }
  ListFormat how;
  how.format = values.format;
  how.quiet = values.quiet;
  how.quiet_field = "ID";
  how.columns = {
      {"ID", "ID"}, {"Created", "CREATED"}, {"CreatedBy", "CREATED BY"}, {"Size", "SIZE"}, {"Comment", "COMMENT"}};
  print(render_list(how, rows, &json));
  return 0;
}

}  // namespace

Action define_history(OptionSet& options) {
  auto values = std::make_shared<HistoryCommand>();
  options.arguments("IMAGE", 1, 1, Complete::image);
  options.text("format", values->format, "FORMAT", "json, table, or a Go template for each step");
  options.flag("human,H", values->human, "sizes and dates for people").shows("true");
  options.flag("no-trunc", values->no_trunc, "show everything in full length");
  options.flag("quiet,q", values->quiet, "show IDs only");
  return [values](Invocation& invocation) { return history(invocation, *values); };
}

}  // namespace kelp::cli
