#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <optional>

#include "base/error.h"
#include "runtime/commands/commands.h"
#include "runtime/commands/create_options.h"
#include "runtime/create.h"
#include "sys/trace.h"

namespace kelp::runtime {
namespace {

constexpr std::array kOptions = {
    KELP_OCI_CREATE_OPTIONS,
    OptionSpec{"detach", 'd', nullptr, "do not wait for the container's end"},
    OptionSpec{"keep", 0, nullptr, "keep the container's state after its end"},
    OptionSpec{"no-subreaper", 0, nullptr, "has no effect: kelp-oci is never a subreaper here"},
    OptionSpec{"hold-fd", 0, "N",
               "say \"cloned PID\" and \"created PID\" there and wait for a byte before the program starts", true},
    OptionSpec{"network-fd", 0, "N", "a socket over which the new network namespace comes", true},
    OptionSpec{"trace-file", 0, "FILE", "note the steps there (sys/trace.h)", true},
};

int descriptor(const Call& call, const char* name) {
  const int fd = call.options.number(name, -1, 3, 1 << 20);
  if (fd >= 0 && ::fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) throw_usage("--{} {}: this descriptor is not open", name, fd);
  return fd;
}

int run(const Call& call) {
  CreateOptions options = create_options(call);
  options.detach = call.options.flag("detach");
  options.keep = call.options.flag("keep");
  options.hold_fd = descriptor(call, "hold-fd");
  options.network_fd = descriptor(call, "network-fd");
  std::optional<sys::TracePage> trace;
  // Whoever asked may have gone (a restart): then nobody wants to know.
  if (const std::string path = call.options.value("trace-file"); !path.empty() && ::access(path.c_str(), W_OK) == 0) {
    trace.emplace(sys::TracePage::file(path, false));
    trace->listen("kelp-oci");
  }
  return run_container(options);
}

}  // namespace

const Command kRun = {"run", "ID", "create and start a container", kOptions, run, 1, 1};

}  // namespace kelp::runtime
