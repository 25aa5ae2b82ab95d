#include "cli/help.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"

namespace kelp::cli {
namespace {

constexpr size_t kWidth = 80;

/// Appends `text` word by word, following lines indented by `indent`; `column` is where the first word goes.
void append_wrapped(std::string& out, std::string_view text, size_t indent, size_t column) {
  bool first = true;
  for (const auto& word : split(text, ' ')) {
    if (!first && column + 1 + word.size() > kWidth) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
      first = true;
    }
    if (!first) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
    first = false;
  }
  out += '\n';
}

std::string option_left(const Option& option) {
  std::string left = option.letter != 0 ? fmt::format("  -{}, --{}", option.letter, option.name)
                                        : fmt::format("      --{}", option.name);
  if (!option.alias.empty()) left += fmt::format(", --{}", option.alias);
  if (option.kind != Kind::flag) left += fmt::format(" {}", option.value);
  return left;
}

std::string option_right(const Option& option) {
  std::string right(option.help);
  if (!option.choices.empty()) {
    std::string words;
    for (auto choice : option.choices) {
      if (choice.empty()) continue;
      words += (words.empty() ? "" : ", ") + std::string(choice);
    }
    right += ": " + words;
  }
  if (option.repeats()) right += " (repeatable)";
  if (!option.fallback.empty()) right += fmt::format(" (default {})", option.fallback);
  return right;
}

void append_row(std::string& out, const std::string& left, std::string_view right, size_t column) {
  out += left;
  size_t at = left.size();
  if (at + 2 > column) {
    out += "\n";
    at = 0;
  }
  out.append(column - at, ' ');
  append_wrapped(out, right, column, column);
}

void append_options(std::string& out, const OptionSet& options, bool inherited) {
  std::vector<std::string_view> groups;
  size_t column = 0;
  for (const Option& option : options.options()) {
    if (option.hidden || option.inherited != inherited) continue;
    if (std::find(groups.begin(), groups.end(), option.group) == groups.end()) groups.push_back(option.group);
    column = std::max(column, std::min<size_t>(option_left(option).size() + 2, 32));
  }
  for (std::string_view group : groups) {
    out += fmt::format("\n{}:\n", group);
    for (const Option& option : options.options()) {
      if (option.hidden || option.inherited != inherited || option.group != group) continue;
      append_row(out, option_left(option), option_right(option), column);
    }
  }
}

void append_commands(std::string& out, std::string_view group_word, std::string_view heading) {
  const std::string prefix = group_word.empty() ? "" : std::string(group_word) + " ";
  constexpr size_t kColumn = 14;
  bool any = false;
  const auto row = [&](std::string_view name, std::string_view summary) {
    if (!any) out += fmt::format("\n{}:\n", heading);
    any = true;
    append_row(out, fmt::format("  {}", name), summary, kColumn);
  };
  for (const Command& command : commands()) {
    if (command.hidden) continue;
    if (group_word.empty()) {
      if (command.group == heading && command.name.find(' ') == std::string_view::npos)
        row(command.name, command.summary);
      continue;
    }
    if (starts_with(command.name, prefix)) {
      row(command.name.substr(prefix.size()), command.summary);
      continue;
    }
    for (const auto& alias : command_aliases(command)) {
      if (starts_with(alias, prefix)) {
        row(std::string_view(alias).substr(prefix.size()), command.summary);
        break;
      }
    }
  }
}

std::string capitalized(std::string_view text) {
  std::string out(text);
  if (!out.empty() && out[0] >= 'a' && out[0] <= 'z') out[0] = static_cast<char>(out[0] - 'a' + 'A');
  return out;
}

}  // namespace

std::string program_help(const OptionSet& globals) {
  std::string out = "Containers without root and without a daemon.\n\nUsage: kelp [OPTIONS] COMMAND [ARGUMENT...]\n";
  std::vector<std::string_view> groups;
  for (const Command& command : commands()) {
    if (std::find(groups.begin(), groups.end(), command.group) == groups.end()) groups.push_back(command.group);
  }
  for (std::string_view group : groups) append_commands(out, {}, group);
  out += "\nGroups of commands:\n";
  for (const CommandGroup& group : command_groups())
    append_row(out, fmt::format("  {}", group.name), group.summary, 14);
  append_options(out, globals, true);
  append_options(out, globals, false);
  out += "\n'kelp COMMAND --help' shows the options of a command.\n";
  return out;
}

std::string group_help(std::string_view group, const OptionSet&) {
  std::string out;
  for (const CommandGroup& entry : command_groups()) {
    if (entry.name == group) out += fmt::format("{}.\n", capitalized(entry.summary));
  }
  out += fmt::format("\nUsage: kelp {} COMMAND [ARGUMENT...]\n", group);
  append_commands(out, group, "Commands");
  out += fmt::format("\n'kelp {} COMMAND --help' shows the options of a command.\n", group);
  return out;
}

std::string command_help(const Command& command, const OptionSet& options) {
  std::string out = fmt::format("{}.\n\nUsage: kelp {} ", capitalized(command.summary), command.name);
  if (!options.options().empty()) out += "[OPTIONS]";
  if (!options.usage().empty()) out += fmt::format(" {}", options.usage());
  out += '\n';
  if (!command.aliases.empty()) {
    Strings names = command_aliases(command);
    for (auto& name : names) name = "kelp " + name;
    out += fmt::format("       also {}\n", join(names, ", "));
  }
  if (!options.description().empty()) {
    out += '\n';
    for (const auto& line : split(options.description(), '\n')) append_wrapped(out, line, 0, 0);
  }
  append_options(out, options, false);
  append_options(out, options, true);
  if (!options.examples().empty()) {
    out += "\nExamples:\n";
    for (const auto& line : split(options.examples(), '\n')) out += fmt::format("  {}\n", line);
  }
  return out;
}

}  // namespace kelp::cli
