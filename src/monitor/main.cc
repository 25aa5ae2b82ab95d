// kelp-monitor: parent of one container. It is started by kelp inside the container's session (user namespace S, a
// mount namespace with the root file system in place) and told everything by a plan; see monitor.h for what it does.
//
//     kelp-monitor LINK PLAN LOCK ROOT [NETWORK]
//                              descriptors: connection to kelp (protocol.h), memory file with the plan (plan.h), the
//                              container's lock file, locked, a pipe that ends with the answer of the child that makes
//                              the root file system (root_answer.h), a socket for kelp-oci run --network-fd
//     kelp-monitor --version

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "kelp_config.h"
#include "monitor/monitor.h"
#include "sys/lock.h"

namespace {

using namespace kelp;

std::string log_path;

/// Nobody reads our stderr once kelp has left: what is worth a warning goes to a file that is made by the first one.
void log_to_file(void*, log::Level level, std::string_view text) {
  if (level < log::sink().level) return;
  const Fd file(::open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!file) return;
  const std::string line = fmt::format("{}: {}\n", log::level_name(level), printable(text));
  [[maybe_unused]] const auto written = ::write(file.get(), line.data(), line.size());
}

Fd inherited(const char* text) {
  const auto number = to_int(text, 3, 1 << 20);
  if (!number) throw_usage("kelp-monitor is started by kelp: LINK PLAN LOCK ROOT [NETWORK] expected");
  Fd fd(static_cast<int>(*number));
  if (::fcntl(fd.get(), F_SETFD, FD_CLOEXEC) < 0) throw_errno("descriptor {}", *number);
  return fd;
}

int run(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--version") == 0) {
    std::puts("kelp-monitor " KELP_VERSION);
    return 0;
  }
  if (argc < 5 || argc > 6) throw_usage("kelp-monitor is started by kelp: LINK PLAN LOCK ROOT [NETWORK] expected");
  ::umask(0077);
  // A container that closes its stdin, and a reader of our caller's that leaves, are answers of write and splice.
  ::signal(SIGPIPE, SIG_IGN);
  Fd link = inherited(argv[1]);
  const Fd lock = inherited(argv[3]);  // held until we end, whatever ends us
  Fd root = inherited(argv[4]);
  Fd network = argc > 5 ? inherited(argv[5]) : Fd();
  monitor::Plan plan;
  {
    const Fd file = inherited(argv[2]);
    plan = monitor::decode(sys::read_rest(file.get(), "the plan", 16u << 20));
  }
  // For the container alone: no other program that we start gets them.
  if (plan.preserve_fds != 0) ::close_range(3, 2 + plan.preserve_fds, CLOSE_RANGE_CLOEXEC);
  log_path = plan.run_dir + "/monitor.log";
  log::divert(log_to_file, nullptr);
  // Whatever loses its parent in the container's own pid namespace goes to its first process; all else comes to us.
  if (::prctl(PR_SET_CHILD_SUBREAPER, 1) < 0) throw_errno("become a subreaper");
  return monitor::Monitor(std::move(plan), std::move(link), std::move(root), std::move(network)).run();
}

}  // namespace

int main(int argc, char** argv) {
  log::set_sink({.program = "kelp-monitor"});
  try {
    return run(argc, argv);
  } catch (const Error& error) {
    log::error("{}", error.message());
    if (!error.hint().empty()) log::error("hint: {}", error.hint());
    return error.exit_code();
  } catch (const std::exception& error) {
    log::error("{}", error.what());
    return kExitFailure;
  }
}
