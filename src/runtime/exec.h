#pragma once

#include <optional>
#include <string>
#include <vector>

#include "spec/runtime_config.h"

namespace kelp::runtime {

struct ExecOptions {
  std::string root, id;
  std::string process_file;  ///< "" = the container's own process with the changes below
  spec::Strings args, env, caps;
  std::vector<std::uint32_t> additional_gids;
  std::string cwd, user;  ///< user: "uid[:gid]"
  std::string apparmor_profile, process_label;
  std::optional<bool> tty;
  bool no_new_privs = false, ignore_paused = false;
  std::string cgroup;  ///< below the container's group, "" = the group itself
  std::string console_socket, pid_file, pidfd_socket;
  int preserve_fds = 0;
  bool detach = false;
  int started_fd = -1;  ///< gets a byte when the command runs; -1 = nobody asks
};

/// `kelp-oci exec`: another process in a running container. Returns its exit code; 0 at once with `detach`.
int exec_in_container(const ExecOptions& options);

}  // namespace kelp::runtime
