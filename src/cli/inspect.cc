#include "engine/inspect.h"

#include <algorithm>
#include <memory>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/container_select.h"
#include "cli/output.h"
#include "store/containers.h"
#include "store/image_lists.h"
#include "store/images.h"
#include "store/volumes.h"

namespace kelp::cli {
namespace {

struct InspectCommand {
  std::string format, type = "all";
  bool latest = false, size = false;
};

/// The object of that name, in podman's order of kinds; null when there is none of the wanted kind.
Json find_object(Invocation& invocation, const InspectCommand& values, const std::string& word) {
  const auto& layout = invocation.context.layout;
  const bool any = values.type == "all";
  if (any || values.type == "container") {
    if (const auto record = store::find(layout, word)) {
      return engine::inspect_container(invocation.context, *record, values.size);
    }
  }
  if (any || values.type == "image") {
    if (const auto image = store::find_image(layout, word)) return engine::inspect_image(invocation.context, *image);
    if (const auto artifact = store::find_artifact(layout, word)) return engine::inspect_artifact(*artifact);
  }
  if (any || values.type == "volume") {
    if (const auto volume = store::find_volume(layout, word, true)) {
      return engine::inspect_volume(invocation.context, *volume);
    }
  }
  return {};
}

/// Podman leaves empty members of an image's configuration out of its JSON; templates know them all the same.
void complete_image_config(Json& object) {
  if (!object.contains("RepoTags") || !object.contains("Config") || !object["Config"].is_object()) return;
  for (const char* text : {"User", "WorkingDir", "StopSignal"})
    if (!object["Config"].contains(text)) object["Config"][text] = "";
  for (const char* none : {"ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "Labels"})
    if (!object["Config"].contains(none)) object["Config"][none] = nullptr;
}

/// These of a container it leaves out where there is nothing: to a template the check is nil, the name empty.
void complete_container(Json& object) {
  if (!object.contains("State") || !object.contains("Mounts")) return;
  for (const char* check : {"Healthcheck", "StartupHealthCheck"})
    if (!object["Config"].contains(check)) object["Config"][check] = nullptr;
  for (const char* text : {"Timezone", "HealthLogDestination"})
    if (!object["Config"].contains(text)) object["Config"][text] = "";
  for (const char* number : {"HealthMaxLogCount", "HealthMaxLogSize"})
    if (!object["Config"].contains(number)) object["Config"][number] = 0;
  if (!object["Config"].contains("SystemdMode")) object["Config"]["SystemdMode"] = false;
  if (!object["Config"].contains("Secrets")) object["Config"]["Secrets"] = nullptr;
  for (Json& mount : object["Mounts"])
    if (!mount.contains("Name")) mount["Name"] = "";
}

/// What is null in the documents is an empty map or list to a template, as it is in Go; the function json prints null.
void show_nothing_as_go_does(Json& value, JsonForms& forms) {
  static const Json kNull;
  static constexpr std::string_view kMaps[] = {"ExposedPorts", "Volumes", "Labels", "Annotations", "CgroupConf"};
  static constexpr std::string_view kLists[] = {"Env",          "Entrypoint",          "Cmd",
                                                "Links",        "VolumesFrom",         "BlkioWeightDevice",
                                                "Log",          "BlkioDeviceReadBps",  "BlkioDeviceWriteBps",
                                                "Secrets",      "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps",
                                                "BoundingCaps", "EffectiveCaps"};
  if (!value.is_structured()) return;
  for (auto member = value.begin(); member != value.end(); ++member) {
    if (!member->is_null()) {
      show_nothing_as_go_does(*member, forms);
      if (value.is_object() && member.key() == "Ports")
        for (Json& bindings : *member)
          if (bindings.is_null()) forms.emplace(&(bindings = Json::array()), &kNull);
      continue;
    }
    if (!value.is_object()) continue;
    if (member.key() == "Config" && value.contains("Tag")) *member = Json::object();  // LogConfig's
    const auto is_named = [&member](std::string_view name) { return member.key() == name; };
    if (std::any_of(std::begin(kMaps), std::end(kMaps), is_named))
      *member = Json::object();
    else if (std::any_of(std::begin(kLists), std::end(kLists), is_named))
      *member = Json::array();
    if (!member->is_null()) forms.emplace(&*member, &kNull);
  }
}

/// Podman leaves out these members of a container where they are zero, false or empty; templates know them all the
/// same.
void leave_out_empty(Json& object) {
  if (!object.contains("State") || !object.contains("HostConfig")) return;
  object["HostConfig"].erase("Sysctls");  // docker's alone: for templates
  static constexpr std::pair<const char*, const char*> kMembers[] = {
      {"State", "ConmonPid"}, {"State", "CgroupPath"}, {"HostConfig", "Init"}};
  const auto is_empty = [](const Json& value) { return value.empty() || value == 0 || value == false || value == ""; };
  for (const auto& [parent, key] : kMembers)
    if (is_empty(object[parent][key])) object[parent].erase(key);
  if (!object["Config"].contains("Healthcheck")) return;
  Json& check = object["Config"]["Healthcheck"];
  for (const char* key : {"StartPeriod", "Interval", "Timeout", "Retries"})
    if (check.contains(key) && is_empty(check[key])) check.erase(key);
}

/// Prints what was found, then fails if something was not.
int inspect(Invocation& invocation, InspectCommand& values) {
  if (values.latest) {
    if (!invocation.arguments.empty()) throw_usage("--latest and names exclude each other");
    if (values.type != "all" && values.type != "container") throw_usage("--latest is for containers");
    invocation.arguments.push_back(latest_container(invocation).id);
  }
  if (invocation.arguments.empty()) {
    throw UsageError(fmt::format("{} needs a name or ID", invocation.command))
        .with_hint(fmt::format("see '{} --help'", invocation.command));
  }
  Json objects = Json::array();
  Strings missing;
  for (const auto& word : invocation.arguments) {
    Json object = find_object(invocation, values, word);
    if (object.is_null()) {
      missing.push_back(word);
    } else {
      objects.push_back(std::move(object));
    }
  }
  const bool plain = values.format.empty() || values.format == "json";
  JsonForms forms;
  for (Json& object : objects) {
    if (plain) {
      leave_out_empty(object);
    } else {
      complete_image_config(object);
      complete_container(object);
      show_nothing_as_go_does(object, forms);
    }
  }
  if (!objects.empty() || values.format.empty()) print(render_objects(values.format, objects, forms));
  const auto message = [&](const std::string& word) {
    return values.type == "all" ? fmt::format("no such object: {}", kelp::quoted(word))
                                : fmt::format("no such {}: {}", values.type, kelp::quoted(word));
  };
  for (size_t i = 0; i + 1 < missing.size(); ++i) log::error("{}", message(missing[i]));
  if (!missing.empty()) throw UsageError(message(missing.back()));
  return 0;
}

Action define(OptionSet& options, const char* type, const char* usage, Complete complete) {
  auto values = std::make_shared<InspectCommand>();
  values->type = type;
  options.arguments(usage, 0, -1, complete);
  options.text("format,f", values->format, "FORMAT", "json, or a Go template for each object");
  if (values->type == "all") {
    options.text("type,t", values->type, "TYPE", "kind of the objects")
        .one_of({"all", "container", "image", "volume"})
        .shows("all");
  }
  if (values->type == "all" || values->type == "container") {
    options.flag("size,s", values->size, "the sizes of containers too");
    add_latest(options, values->latest);
  }
  return [values](Invocation& invocation) { return inspect(invocation, *values); };
}

}  // namespace

Action define_inspect(OptionSet& options) { return define(options, "all", "NAME...", Complete::object); }
Action define_container_inspect(OptionSet& options) {
  return define(options, "container", "CONTAINER...", Complete::container);
}
Action define_image_inspect(OptionSet& options) { return define(options, "image", "IMAGE...", Complete::image); }

Action define_container_exists(OptionSet& options) {
  auto external = std::make_shared<bool>(false);
  options.arguments("CONTAINER", 1, 1, Complete::container);
  options.flag("external", *external, "also what lies in the store and cannot be run here");
  return [external](Invocation& invocation) {
    const auto& layout = invocation.context.layout;
    const std::string& word = invocation.arguments[0];
    const auto others = *external ? store::list_external(layout) : std::vector<store::ContainerRecord>();
    const bool there = std::any_of(others.begin(), others.end(), [&word](const store::ContainerRecord& other) {
      return other.name == word || (word.size() >= 3 && starts_with(other.id, word));
    });
    return there || store::find(layout, word) ? 0 : 1;
  };
}

Action define_image_exists(OptionSet& options) {
  options.arguments("IMAGE", 1, 1, Complete::image);
  return [](Invocation& invocation) {
    const auto& layout = invocation.context.layout;
    const std::string& name = invocation.arguments[0];
    return store::find_image(layout, name) || store::find_artifact(layout, name) ? 0 : 1;
  };
}

}  // namespace kelp::cli
