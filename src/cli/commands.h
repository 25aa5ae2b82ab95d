#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/option_set.h"
#include "engine/context.h"

namespace kelp::cli {

/// What a command's action gets.
struct Invocation {
  engine::Context& context;
  Strings arguments;     ///< the words that are no options
  std::string command;   ///< "kelp ps"
  Strings command_line;  ///< as typed, program first
};
/// Runs the command; its value is the exit status. Errors are thrown.
using Action = std::function<int(Invocation&)>;

/// One line of the table of commands.
///
/// name     words after the program: "ps", "volume ls"
/// aliases  other spellings, separated by ", ": "container ls, container ps"
/// group    heading in the program's help; a name with a space belongs to its first word's own help
/// define   declares the options and returns the action bound to them
struct Command {
  std::string_view name;
  std::string_view aliases;
  std::string_view group;
  std::string_view summary;
  Action (*define)(OptionSet&);
  bool hidden = false;
};

/// A first word that stands for several commands.
struct CommandGroup {
  std::string_view name;
  std::string_view summary;
};

std::span<const Command> commands();
std::span<const CommandGroup> command_groups();

/// The command that the words begin with ("container", "ls"), by name or alias; `used` words. nullptr: none.
const Command* find_command(const Strings& words, size_t& used);
/// "container ls" → the command; nullptr: none.
const Command* find_command_named(std::string_view name);
/// Aliases as a list.
Strings command_aliases(const Command& command);
/// "unknown command" with the nearest one; throws UsageError.
[[noreturn]] void throw_unknown_command(const Strings& words);

}  // namespace kelp::cli
