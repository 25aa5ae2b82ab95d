#include <ctime>
#include <memory>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/output.h"
#include "cli/template.h"
#include "engine/inspect.h"
#include "kelp_config.h"

namespace kelp::cli {
namespace {

bool plain_yaml(const std::string& text) {
  if (text.empty()) return false;
  return text.find_first_of("\n:#{}[],&*!|>'\"%@`") == std::string::npos && text.front() != ' ' && text.back() != ' ' &&
         text.front() != '-' && text.front() != '?';
}

/// YAML as podman prints its facts: blocks only, strings quoted where they must be.
void append_yaml(std::string& out, const Json& value, size_t indent) {
  const std::string space(indent, ' ');
  if (value.is_object()) {
    for (const auto& entry : value.items()) {
      out += fmt::format("{}{}:", space, entry.key());
      const Json& inner = entry.value();
      if (inner.is_structured() && !inner.empty()) {
        out += '\n';
        append_yaml(out, inner, inner.is_array() ? indent : indent + 2);
      } else if (inner.is_structured()) {
        out += inner.is_array() ? " []\n" : " {}\n";
      } else {
        append_yaml(out, inner, 0);
      }
    }
  } else if (value.is_array()) {
    for (const Json& item : value) {
      std::string text;
      append_yaml(text, item, item.is_structured() ? indent + 2 : 0);
      out += space + "-" + (item.is_structured() ? " " + text.substr(std::min(text.size(), indent + 2)) : text);
    }
  } else if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    out += " " + (plain_yaml(text) ? text : value.dump(-1, ' ', false, Json::error_handler_t::replace)) + "\n";
  } else {
    out += " " + value.dump() + "\n";
  }
}

/// "Thu Jan  1 00:00:00 1970"
std::string built_time(std::time_t seconds) {
  std::tm parts{};
  ::localtime_r(&seconds, &parts);
  char text[64];
  return {text, std::strftime(text, sizeof text, "%a %b %e %H:%M:%S %Y", &parts)};
}

Json version_facts() {
  Json json;
  json["APIVersion"] = KELP_VERSION;
  json["Version"] = KELP_VERSION;
  json["GoVersion"] = "";  // podman's keys that nothing here fills: templates may name them
  json["GitCommit"] = "";
  json["BuiltTime"] = KELP_BUILD_TIME == 0 ? "" : built_time(KELP_BUILD_TIME);
  json["Built"] = KELP_BUILD_TIME;
  json["OsArch"] = "linux/" + engine::host_architecture();
  json["Os"] = "linux";
  return json;
}

/// The facts under the names of Go's fields, with what they are in JSON: both have the same order, and the fields may
/// have more behind what the facts have.
void pair_forms(const Json& fields, const Json& facts, JsonForms& forms) {
  forms.emplace(&fields, &facts);
  if (!fields.is_structured()) return;
  for (auto field = fields.begin(), fact = facts.begin(); field != fields.end() && fact != facts.end(); ++field, ++fact)
    pair_forms(*field, *fact, forms);
}

}  // namespace

Action define_info(OptionSet& options) {
  auto format = std::make_shared<std::string>();
  options.text("format,f", *format, "FORMAT", "json or a Go template");
  return [format](Invocation& invocation) {
    Json facts = engine::host_info(invocation.context);
    facts["version"] = version_facts();
    const bool plain = format->empty() || *format == "json";
    const Json fields = plain ? Json() : engine::exported_names(facts);
    facts["host"]["remoteSocket"].erase(
        "exists");  // the last; podman leaves it out where it is false, templates know it
    if (!plain) {
      JsonForms forms;
      pair_forms(fields, facts, forms);
      print(Template(*format).render(fields, forms) + "\n");
      return 0;
    }
    if (*format == "json") {
      print(pretty_json(facts));
    } else {
      std::string out;
      append_yaml(out, facts, 0);
      print(out);
    }
    return 0;
  };
}

Action define_version(OptionSet& options) {
  auto format = std::make_shared<std::string>();
  options.text("format,f", *format, "FORMAT", "json or a Go template");
  return [format](Invocation&) {
    Json facts;
    facts["Client"] = version_facts();
    if (format->empty()) {
      print(fmt::format("Client:       Kelp\nVersion:      {}\nOS/Arch:      linux/{}\n", KELP_VERSION,
                        engine::host_architecture()));
    } else if (*format == "json") {
      print(pretty_json(facts));
    } else {
      facts["Server"] = facts["Client"];  // docker's scripts ask for {{.Server.Version}}
      print(render_objects(*format, Json::array({facts})));
    }
    return 0;
  };
}

}  // namespace kelp::cli
