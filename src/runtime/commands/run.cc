#include <fcntl.h>

#include <array>

#include "base/error.h"
#include "runtime/commands/commands.h"
#include "runtime/commands/create_options.h"
#include "runtime/create.h"

namespace kelp::runtime {
namespace {

constexpr std::array kOptions = {
    KELP_OCI_CREATE_OPTIONS,
    OptionSpec{"detach", 'd', nullptr, "do not wait for the container's end"},
    OptionSpec{"keep", 0, nullptr, "keep the container's state after its end"},
    OptionSpec{"no-subreaper", 0, nullptr, "has no effect: kelp-oci is never a subreaper here"},
    OptionSpec{"hold-fd", 0, "N",
               "say \"cloned PID\" and \"created PID\" there and wait for a byte before the program starts", true},
};

int run(const Call& call) {
  CreateOptions options = create_options(call);
  options.detach = call.options.flag("detach");
  options.keep = call.options.flag("keep");
  options.hold_fd = call.options.number("hold-fd", -1, 3, 1 << 20);
  if (options.hold_fd >= 0 && ::fcntl(options.hold_fd, F_SETFD, FD_CLOEXEC) < 0)
    throw_usage("--hold-fd {}: this descriptor is not open", options.hold_fd);
  return run_container(options);
}

}  // namespace

const Command kRun = {"run", "ID", "create and start a container", kOptions, run, 1, 1};

}  // namespace kelp::runtime
