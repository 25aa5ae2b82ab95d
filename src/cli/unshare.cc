#include <cstdlib>

#include "base/error.h"
#include "base/program_path.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "engine/session.h"
#include "sys/clone.h"
#include "sys/spawn.h"

namespace kelp::cli {

Action define_unshare(OptionSet& options) {
  options.arguments("[COMMAND [ARGUMENT...]]", 0, -1, Complete::command);
  options.stop_at_first_word();
  options.describe(
      "The command sees the files of containers and volumes with their own owners, and is root there. What it mounts "
      "is gone at its end.",
      "kelp unshare sh -c 'ls -l $(kelp mount web)'");
  return [](Invocation& invocation) {
    sys::SpawnRequest request;
    request.argv = invocation.arguments;
    if (request.argv.empty()) {
      const char* shell = std::getenv("SHELL");
      request.argv.emplace_back(shell != nullptr && *shell != '\0' ? shell : "/bin/sh");
    }
    const std::string& word = request.argv.front();
    request.path = word.find('/') == std::string::npos ? find_in_path(word) : word;
    if (request.path.empty()) {
      throw Error(fmt::format("there is no command {} in PATH", quoted(word)), kExitNotFound);
    }
    auto child = engine::spawn_in_userns(invocation.context, request, true);
    return child.wait();
  };
}

}  // namespace kelp::cli
