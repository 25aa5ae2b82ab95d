#include "engine/events.h"

#include <algorithm>
#include <memory>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/container_select.h"
#include "cli/output.h"

namespace kelp::cli {
namespace {

struct EventsCommand {
  Strings filters;
  std::string format, since, until;
  bool stream = true, no_trunc = true;
};

struct Condition {
  std::string key, value;
};

std::vector<Condition> parse_filters(const Strings& texts) {
  static const Strings kKeys = {"container", "event", "image", "label", "type", "volume", "secret"};
  std::vector<Condition> conditions;
  for (const auto& text : texts) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) throw_usage("--filter {}: must be key=value", kelp::quoted(text));
    Condition condition{text.substr(0, equals), text.substr(equals + 1)};
    if (std::find(kKeys.begin(), kKeys.end(), condition.key) == kKeys.end())
      throw_usage("--filter: unknown key {}; there are: {}", kelp::quoted(condition.key), join(kKeys, ", "));
    // Docker's words for the same steps.
    if (condition.key == "event" && condition.value == "die") condition.value = "died";
    if (condition.key == "event" && condition.value == "destroy") condition.value = "remove";
    conditions.push_back(std::move(condition));
  }
  return conditions;
}

bool fits(const Condition& condition, const engine::Event& event) {
  const std::string& value = condition.value;
  const auto named = [&](const char* type) {
    return event.type == type && (event.name == value || (!value.empty() && starts_with(event.id, value)));
  };
  if (condition.key == "event") return event.status == value;
  if (condition.key == "type") return event.type == value;
  if (condition.key == "image")
    return named("image") || event.image == value || ends_with(event.image, "/" + value) ||
           event.image.find("/" + value + ":") != std::string::npos || starts_with(event.image, value + ":");
  if (condition.key != "label") return named(condition.key.c_str());
  const size_t equals = value.find('=');
  const auto found = event.attributes.find(value.substr(0, equals));
  return found != event.attributes.end() && (equals == std::string::npos || found->second == value.substr(equals + 1));
}

/// One key several times: any of them. Different keys: all of them.
bool fits_all(const std::vector<Condition>& conditions, const engine::Event& event) {
  return std::all_of(conditions.begin(), conditions.end(), [&](const Condition& one) {
    return std::any_of(conditions.begin(), conditions.end(),
                       [&](const Condition& other) { return other.key == one.key && fits(other, event); });
  });
}

/// As podman prints an event for people.
std::string human(const engine::Event& event, bool whole) {
  const std::string id = whole ? event.id : event.id.substr(0, 12);
  std::string line = fmt::format("{} {} {}", go_time(event.time), event.type, event.status);
  if (event.type != "container") {
    if (!event.id.empty() && event.id != event.name) line += " " + id;
    return event.name.empty() ? line : line + " " + event.name;
  }
  line += fmt::format(" {} (image={}, name={}", id, event.image, event.name);
  if (!event.health.empty()) line += ", health_status=" + event.health;
  if (event.exit_code) line += fmt::format(", exitCode={}", *event.exit_code);
  for (const auto& [key, value] : event.attributes) line += fmt::format(", {}={}", key, value);
  return line + ")";
}

Json fields(const engine::Event& event, bool for_template) {
  const auto since_epoch = event.time.time_since_epoch();
  Json json;
  json["Name"] = event.name;
  json["Status"] = event.status;
  json["Time"] = for_template ? go_time(event.time) : format_rfc3339(event.time);
  json["time"] = std::chrono::duration_cast<std::chrono::seconds>(since_epoch).count();
  json["timeNano"] = std::chrono::duration_cast<std::chrono::nanoseconds>(since_epoch).count();
  json["Type"] = event.type;
  if (for_template || event.type != "volume") json["ID"] = event.id;
  if (for_template || !event.image.empty()) json["Image"] = event.image;
  json["Attributes"] = Json::object();
  for (const auto& [key, value] : event.attributes) json["Attributes"][key] = value;
  if (for_template || event.exit_code.value_or(0) != 0) json["ContainerExitCode"] = event.exit_code.value_or(0);
  if (for_template || !event.health.empty()) json["HealthStatus"] = event.health;
  return json;
}

int events(Invocation& invocation, const EventsCommand& values) {
  const auto conditions = parse_filters(values.filters);
  engine::EventOptions options;
  if (!values.since.empty()) options.since = parse_moment(values.since, "--since");
  if (!values.until.empty()) options.until = parse_moment(values.until, "--until", Moment::ahead);
  options.past = !values.since.empty() || !values.until.empty() || !values.stream;
  options.follow = values.stream;
  std::optional<Template> row;
  if (!values.format.empty() && values.format != "json") row.emplace(unescape_format(values.format));
  engine::read_events(invocation.context, options, [&](const engine::Event& event) {
    if (!fits_all(conditions, event)) return true;
    if (values.format == "json")
      print_line(fields(event, false).dump(-1, ' ', false, Json::error_handler_t::replace));
    else if (row)
      print_line(row->render(fields(event, true)));
    else
      print_line(printable(human(event, values.no_trunc)));
    return true;
  });
  return 0;
}

}  // namespace

Action define_events(OptionSet& options) {
  auto values = std::make_shared<EventsCommand>();
  options.list("filter,f", values->filters, "KEY=VALUE",
               "events that fit: container=web, event=died, type=image, label=key, ...");
  options.text("format", values->format, "FORMAT", "json, or a Go template for each event");
  options.text("since", values->since, "TIME", "begin with the events of that time; a duration is counted back");
  options.text("until", values->until, "TIME", "end at that time; a duration is counted from now");
  options.flag("stream", values->stream, "wait for further events").shows("true");
  options.flag("no-trunc", values->no_trunc, "show IDs in full length").shows("true");
  return [values](Invocation& invocation) { return events(invocation, *values); };
}

}  // namespace kelp::cli
