#pragma once

#include <string>

#include "spec/runtime_config.h"

namespace kelp::runtime {

struct CreateOptions {
  std::string root, id;
  std::string bundle = ".", config = "config.json";
  std::string console_socket, pid_file;
  std::string pidfd_socket;  ///< unix socket that gets a pidfd of the first process, "" = none
  int preserve_fds = 0;
  bool no_pivot = false, no_new_keyring = false;
  bool rootless = true;  ///< an ordinary user's configuration without a user namespace gets one
  bool systemd_cgroup = false, no_cgroup = false;
  bool die_with_parent = false;  ///< private: the container ends with the process that called us
  // run only
  bool detach = false, keep = false;
  /// Private, a socket: say "cloned PID" and "created PID" there, and wait for a byte before the payload starts.
  int hold_fd = -1;
  /// Private, a socket on which a new network namespace with its loopback up may come, made while we started: used in
  /// place of one of our own. End-of-file: it could not be made.
  int network_fd = -1;
};

/// `kelp-oci create`: the container exists and waits for `start`.
void create_container(const CreateOptions& options);

/// `kelp-oci run`: create and start in one. Returns the payload's exit code; 0 at once with `detach`.
int run_container(const CreateOptions& options);

/// Removes what is left of a container whose processes have ended: cgroup, poststop hooks, state directory.
class Container;
struct Record;
void destroy_container(Container& container);
/// poststart hooks, with the state of a running container.
void run_poststart(const Container& container, const Record& record, const spec::Hooks& hooks);

}  // namespace kelp::runtime
