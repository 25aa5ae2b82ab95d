#include <nlohmann/json.hpp>

#include "cli/command_actions.h"
#include "cli/global_options.h"
#include "cli/output.h"

namespace kelp::cli {
namespace {

Json option_json(const Option& option) {
  Json json;
  json["name"] = option.name;
  if (!option.alias.empty()) json["alias"] = option.alias;
  if (option.letter != 0) json["letter"] = std::string(1, option.letter);
  json["kind"] = kind_name(option.kind);
  if (option.kind != Kind::flag) json["value"] = option.value;
  json["help"] = option.help;
  json["group"] = option.group;
  if (!option.fallback.empty()) json["default"] = option.fallback;
  if (!option.implied.empty()) json["implied"] = option.implied;
  if (!option.choices.empty()) json["choices"] = option.choices;
  if (option.completes != Complete::none) json["complete"] = complete_name(option.completes);
  json["repeatable"] = option.repeats();
  if (option.inherited) json["global"] = true;
  return json;
}

Json options_json(const OptionSet& options, bool inherited) {
  Json list = Json::array();
  for (const Option& option : options.options()) {
    if (!option.hidden && option.inherited == inherited) list.push_back(option_json(option));
  }
  return list;
}

Json command_json(const Command& command) {
  OptionSet options;
  const Action action = command.define(options);
  Json json;
  json["name"] = command.name;
  json["aliases"] = command_aliases(command);
  json["group"] = command.group;
  json["summary"] = command.summary;
  json["usage"] = options.usage();
  if (!options.description().empty()) json["description"] = options.description();
  if (!options.examples().empty()) json["examples"] = options.examples();
  json["arguments"] = {{"complete", complete_name(options.argument_completion())}, {"max", options.max_arguments()}};
  json["options_end_at_first_word"] = !options.interspersed();
  json["options"] = options_json(options, false);
  return json;
}

}  // namespace

Action define_dump_options(OptionSet&) {
  return [](Invocation&) {
    Json tree;
    tree["schema"] = 1;
    ProgramOptions program;
    OptionSet globals;
    add_global_options(globals, program, true);
    tree["program"] = "kelp";
    tree["options"] = options_json(globals, true);
    tree["groups"] = Json::array();
    for (const CommandGroup& group : command_groups()) {
      tree["groups"].push_back({{"name", group.name}, {"summary", group.summary}});
    }
    tree["commands"] = Json::array();
    for (const Command& command : commands()) {
      if (!command.hidden) tree["commands"].push_back(command_json(command));
    }
    print(pretty_json(tree));
    return 0;
  };
}

}  // namespace kelp::cli
