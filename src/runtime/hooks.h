#pragma once

#include <string>
#include <vector>

#include "spec/runtime_config.h"

namespace kelp::runtime {

/// Runs hooks one after the other, each with the state document on its stdin and in the bundle directory (where it can
/// be reached). One that cannot be run, exits with other than 0 or exceeds its timeout is an Error with its output.
///
/// kind   "createRuntime" …, for messages
/// cwd    "" = stay
/// env    of hooks that name none themselves; null = the runtime's own, which no hook inside a container may see
/// source runtime-spec config.md#posix-platform-hooks
void run_hooks(const char* kind, const std::vector<spec::Hook>& hooks, const std::string& state, const std::string& cwd,
               const spec::Strings* env = nullptr);

/// As run_hooks, but failures are warnings: poststart and poststop.
void run_hooks_warning(const char* kind, const std::vector<spec::Hook>& hooks, const std::string& state,
                       const std::string& cwd) noexcept;

}  // namespace kelp::runtime
