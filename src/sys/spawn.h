#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sys/clone.h"

namespace kelp::sys {

/// A program to be started as a helper.
///
/// path         absolute path (no PATH search; see find_in_path)
/// argv         with argv[0]
/// env          "NAME=value" lines; nullopt = ours
/// fds          {descriptor in the child, our descriptor}: everything else is closed by CLOEXEC. 0, 1 and 2 that are
///              not named here are inherited; a parent's -1 means /dev/null
/// cgroup_fd    directory of the cgroup that the child starts in, -1 = ours
/// death_signal sent to the child when the thread that started it dies, 0 = none
/// new_session  setsid() before exec
struct SpawnRequest {
  std::string path;
  std::vector<std::string> argv;
  std::optional<std::vector<std::string>> env;
  std::vector<std::pair<int, int>> fds;
  int cgroup_fd = -1;
  int death_signal = 0;
  bool new_session = false;
  std::string working_dir;
};

/// Starts the program with all signals unblocked and SIGPIPE at its default. vfork-like: the caller stands still until
/// exec, so a missing program is reported here.
///
/// throws  SysError with the errno of exec (ENOENT, EACCES, …)
Child spawn(const SpawnRequest& request);

struct Captured {
  int status = 0;  ///< exit status, or 128 + signal
  std::string out, err;
};

/// Runs the program to its end with `input` on its stdin (empty: /dev/null), collecting stdout and stderr at the same
/// time, each cut at 16 MiB.
Captured run_captured(SpawnRequest request, std::string_view input = {});

/// Replaces this process; as spawn() otherwise. throws SysError, never returns.
[[noreturn]] void exec_program(const SpawnRequest& request);

}  // namespace kelp::sys
