#pragma once

#include <string>
#include <string_view>

#include "cli/commands.h"
#include "cli/option_set.h"

namespace kelp::cli {

/// `kelp --help`: commands by group, then the global options.
std::string program_help(const OptionSet& globals);
/// `kelp volume --help`
std::string group_help(std::string_view group, const OptionSet& globals);
/// `kelp ps --help`: usage, summary, options by group; at most 80 columns.
std::string command_help(const Command& command, const OptionSet& options);

}  // namespace kelp::cli
