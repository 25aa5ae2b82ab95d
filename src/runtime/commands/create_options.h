#pragma once

#include "runtime/commands/commands.h"
#include "runtime/create.h"

/// Options that create and run share, as elements of an OptionSpec array.
#define KELP_OCI_CREATE_OPTIONS                                                                           \
  OptionSpec{"bundle", 'b', "DIR", "bundle directory (default: the current one)"},                        \
      OptionSpec{"config", 'f', "FILE", "configuration in place of config.json"},                         \
      OptionSpec{"console-socket", 0, "PATH", "unix socket that gets the terminal's master"},             \
      OptionSpec{"pid-file", 0, "FILE", "write the first process' id there"},                             \
      OptionSpec{"pidfd-socket", 0, "PATH", "unix socket that gets a pidfd of the first process"},        \
      OptionSpec{"no-pivot", 0, nullptr, "chroot in place of pivot_root (hosts that run on a ramfs)"},    \
      OptionSpec{"no-new-keyring", 0, nullptr, "keep the caller's session keyring"},                      \
      OptionSpec{"preserve-fds", 0, "N", "pass N descriptors after stdio to the container"}, OptionSpec { \
    "die-with-parent", 0, nullptr, "end the container with the process that called kelp-oci", true        \
  }

namespace kelp::runtime {

/// CreateOptions from a command line that has the options above.
CreateOptions create_options(const Call& call);

}  // namespace kelp::runtime
