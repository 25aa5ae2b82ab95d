#pragma once

#include <string>
#include <vector>

#include "store/container_record.h"

namespace kelp::engine {

struct Context;

/// What podman's users get from exec where nothing runs, and where it could not even be asked for.
inline constexpr int kExitNoExec = 255;

/// One more process in a running container. Empty strings: as the container has it.
struct ExecRequest {
  store::Strings command;
  store::Strings env;  ///< NAME=value, added to the container's
  std::string user, workdir;
  bool tty = false, interactive = false, detach = false, privileged = false;
  std::string detach_keys = "ctrl-p,ctrl-q";
  unsigned preserve_fds = 0;
  std::vector<int> preserved;  ///< further descriptors by number; those between them are /dev/null
  std::string id;              ///< 64 hexadecimal digits: which exec events tell of; what --detach prints
};

/// The exit status of the process (126, 127 when it could not be executed); 0 at once with `detach` or after the
/// detach keys. Through the monitor, which starts the runtime's exec in the container's cgroup with our descriptors.
int exec_in_container(Context& context, const store::ContainerRecord& record, const ExecRequest& request);

}  // namespace kelp::engine
