#pragma once

#include <string>

#include "cli/option_set.h"
#include "engine/context.h"

namespace kelp::cli {

/// Options of the program itself; they may stand before and after the command.
struct ProgramOptions {
  engine::GlobalOptions engine;
  std::string log_level = "warn";
  std::string out;            ///< --out: where standard output goes instead
  std::string docker_config;  ///< --config
  bool version = false;
};
/// with_version: --version and -v, which only the program has.
void add_global_options(OptionSet& options, ProgramOptions& values, bool with_version);

}  // namespace kelp::cli
