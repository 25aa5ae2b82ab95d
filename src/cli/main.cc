#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "base/error.h"
#include "base/log.h"
#include "base/owned.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/global_options.h"
#include "cli/help.h"
#include "cli/output.h"
#include "engine/context.h"
#include "kelp_config.h"

namespace kelp::cli {
namespace {

/// The words after the global options; nullopt: the answer has been printed.
std::optional<Strings> read_program_options(const Strings& words, ProgramOptions& program) {
  OptionSet globals;
  globals.stop_at_first_word();
  globals.arguments("COMMAND [ARGUMENT...]", 0, -1);
  add_global_options(globals, program, true);
  Strings rest = globals.parse(words, "kelp");
  if (program.version) {
    print_line("kelp version " KELP_VERSION);
    return std::nullopt;
  }
  const bool help_word = !rest.empty() && rest[0] == "help";
  if (globals.help_asked() || rest.empty() || (help_word && rest.size() == 1)) {
    print(program_help(globals));
    if (!globals.help_asked() && rest.empty()) {
      throw UsageError("a command is missing").with_hint("see 'kelp --help'");
    }
    return std::nullopt;
  }
  if (help_word) {
    rest.erase(rest.begin());
    rest.emplace_back("--help");
  }
  return rest;
}

bool is_group(const std::string& word) {
  for (const CommandGroup& group : command_groups()) {
    if (group.name == word) return true;
  }
  return false;
}

void apply_log_level(const ProgramOptions& program) {
  log::Sink sink;
  sink.level = log::parse_level(program.log_level);
  log::set_sink(std::move(sink));
}

/// --out and --config hold for the programs that we execute as well.
void apply_surroundings(const ProgramOptions& program) {
  if (!program.docker_config.empty()) ::setenv("DOCKER_CONFIG", program.docker_config.c_str(), 1);
  if (program.out.empty()) return;
  const Fd file(::open(program.out.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (!file) throw_errno("open {}", quoted(program.out));
  if (::dup2(file.get(), STDOUT_FILENO) < 0) throw_errno("write standard output to {}", quoted(program.out));
}

int run(const Strings& line) {
  ProgramOptions program;
  const auto words = read_program_options(Strings(line.begin() + 1, line.end()), program);
  if (!words) return 0;
  size_t used = 0;
  const Command* command = find_command(*words, used);
  if (command == nullptr) {
    const bool asks_help = words->size() == 2 && ((*words)[1] == "--help" || (*words)[1] == "-h");
    if (is_group((*words)[0]) && (asks_help || words->size() == 1)) {
      OptionSet none;
      print(group_help((*words)[0], none));
      if (asks_help) return 0;
    }
    throw_unknown_command(*words);
  }
  OptionSet options;
  const Action action = command->define(options);
  add_global_options(options, program, false);
  const std::string name = "kelp " + std::string(command->name);
  Strings arguments = options.parse(Strings(words->begin() + static_cast<std::ptrdiff_t>(used), words->end()), name);
  if (options.help_asked()) {
    print(command_help(*command, options));
    return 0;
  }
  apply_log_level(program);
  apply_surroundings(program);
  engine::Context context = engine::make_context(program.engine);
  Invocation invocation{context, std::move(arguments), name, line};
  return action(invocation);
}

}  // namespace
}  // namespace kelp::cli

int main(int argc, char** argv) {
  try {
    return kelp::cli::run(kelp::cli::Strings(argv, argv + argc));
  } catch (const kelp::Error& error) {
    kelp::log::error("{}", error.what());
    if (!error.hint().empty()) ::dprintf(STDERR_FILENO, "hint: %s\n", kelp::printable(error.hint()).c_str());
    return error.exit_code();
  } catch (const std::exception& error) {
    kelp::log::error("{}", error.what());
    return kelp::kExitFailure;
  }
}
