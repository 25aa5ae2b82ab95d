#pragma once

#include <string>
#include <vector>

#include "spec/runtime_config.h"

/// What the first process and an exec'd one have in common on their way to the payload. Inside the container's root.
namespace kelp::runtime {

/// Adds HOME from the container's /etc/passwd when the environment has none, as engines expect of runc.
void complete_environment(spec::Strings& env, uid_t uid);

/// Absolute or cwd-relative path of args[0], searched in PATH of `env` when it has no slash.
/// throws  Error with exit code 127 (not found) or 126 (not executable), in runc's words
std::string find_executable(const std::string& name, const spec::Strings& env);

/// chdir, and a check that the kernel's idea of the directory lies inside our root (a leaked descriptor as cwd would
/// be a way out). Missing directories are an error here; make_working_dir() makes them.
void enter_working_dir(const std::string& cwd);
/// mkdir -p below `root`, as runc does for process.cwd.
void make_working_dir(int root, const std::string& cwd);

/// What was inherited by chance must not reach the payload: default signal handlers, no blocked signals.
void reset_signals();
/// Gives anonymous pipes among stdio to the payload's user, so that it can open /dev/stdout. Files and sockets of the
/// caller stay his.
void own_stdio_pipes(uid_t uid);

/// Closes all descriptors from `first` on but those in `keep` (-1 = none). What the caller leaked must be gone before
/// the container's names are looked up: as /proc/self/fd/N it would be a way out, close-on-exec or not.
void close_all_but(int first, std::vector<int> keep);
/// SIGKILL when our parent dies; parent_pidfd (-1 = unknown) tells whether that has happened already. After every
/// change of ids, since those clear it.
void die_with_parent(int parent_pidfd);
/// execve. throws Error with exit code 126 or 127.
[[noreturn]] void exec_payload(const std::string& path, const spec::Strings& args, const spec::Strings& env);

}  // namespace kelp::runtime
