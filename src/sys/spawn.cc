#include "sys/spawn.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "base/error.h"
#include "base/owned.h"

namespace kelp::sys {
namespace {

constexpr size_t kMaxCapture = 16u << 20;

/// Everything the child needs, laid out before the clone: between vfork and exec nothing may allocate.
struct Prepared {
  std::vector<char*> argv, env;
  std::vector<std::pair<int, int>> fds;
  std::vector<int> parked;
  int first_free = 3;

  explicit Prepared(const SpawnRequest& request) : fds(request.fds), parked(request.fds.size(), -1) {
    for (const auto& arg : request.argv) argv.push_back(const_cast<char*>(arg.c_str()));
    argv.push_back(nullptr);
    if (request.env) {
      for (const auto& line : *request.env) env.push_back(const_cast<char*>(line.c_str()));
      env.push_back(nullptr);
    }
    for (const auto& [child, ours] : fds) first_free = std::max(first_free, child + 1);
  }
};

/// Child side. Parks every source above the highest target first, so that no target overwrites a later source.
int place_descriptors(Prepared& plan) noexcept {
  for (size_t i = 0; i < plan.fds.size(); ++i) {
    int from = plan.fds[i].second;
    if (from < 0) from = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (from < 0) return errno;
    plan.parked[i] = ::fcntl(from, F_DUPFD_CLOEXEC, plan.first_free);
    if (plan.parked[i] < 0) return errno;
  }
  // Whatever our caller left open to us ends here: a monitor lives for months.
  ::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
  for (size_t i = 0; i < plan.fds.size(); ++i)
    if (::dup2(plan.parked[i], plan.fds[i].first) < 0) return errno;
  return 0;
}

/// Child side up to exec; returns the errno of what failed. Async-signal-safe calls only.
int become(const SpawnRequest& request, Prepared& plan) noexcept {
  if (request.death_signal != 0 && ::prctl(PR_SET_PDEATHSIG, request.death_signal) < 0) return errno;
  if (request.new_session && ::setsid() < 0) return errno;
  if (const int failed = place_descriptors(plan)) return failed;
  if (!request.working_dir.empty() && ::chdir(request.working_dir.c_str()) < 0) return errno;
  ::signal(SIGPIPE, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::execve(request.path.c_str(), plan.argv.data(), plan.env.empty() ? environ : plan.env.data());
  return errno;
}

/// The cgroup of a child can only be chosen by clone3, so this branch forks; exec's errno comes back over a pipe.
Child spawn_in_cgroup(const SpawnRequest& request, Prepared& plan) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) throw_errno("make a pipe");
  Fd read_end(ends[0]), write_end(ends[1]);
  CloneOptions options;
  options.cgroup_fd = request.cgroup_fd;
  Child child = clone_child(
      0,
      [&]() -> int {
        const int at = ::fcntl(write_end.get(), F_DUPFD_CLOEXEC, plan.first_free);
        plan.first_free = std::max(plan.first_free, at + 1);
        const int failed = become(request, plan);
        [[maybe_unused]] const auto told = ::write(at, &failed, sizeof failed);
        return 127;
      },
      options);
  write_end.reset();
  int failed = 0;
  if (::read(read_end.get(), &failed, sizeof failed) == static_cast<ssize_t>(sizeof failed)) {
    child.wait();
    throw SysError(fmt::format("execute {}", request.path), failed);
  }
  return child;
}

}  // namespace

Child spawn(const SpawnRequest& request) {
  Prepared plan(request);
  if (request.cgroup_fd >= 0) return spawn_in_cgroup(request, plan);

  // With signals blocked no handler of ours can run on the shared memory of the child.
  sigset_t all, before;
  sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, &before);
  volatile int failed = 0;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
  const pid_t pid = ::vfork();
#pragma GCC diagnostic pop
  if (pid == 0) {
    failed = become(request, plan);
    ::_exit(127);
  }
  const int fork_errno = errno;
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) throw SysError(fmt::format("start {}", request.path), fork_errno);
  Child child;
  child.pid = pid;
  child.pidfd = pidfd_open(pid);
  if (failed != 0) {
    child.wait();
    throw SysError(fmt::format("execute {}", request.path), failed);
  }
  return child;
}

void exec_program(const SpawnRequest& request) {
  Prepared plan(request);
  const int failed = become(request, plan);
  throw SysError(fmt::format("execute {}", request.path), failed);
}

Captured run_captured(SpawnRequest request, std::string_view input) {
  int out_ends[2], err_ends[2], in_ends[2] = {-1, -1};
  if (::pipe2(out_ends, O_CLOEXEC) < 0) throw_errno("make a pipe");
  Fd out_read(out_ends[0]), out_write(out_ends[1]);
  if (::pipe2(err_ends, O_CLOEXEC) < 0) throw_errno("make a pipe");
  Fd err_read(err_ends[0]), err_write(err_ends[1]);
  if (!input.empty() && ::pipe2(in_ends, O_CLOEXEC) < 0) throw_errno("make a pipe");
  Fd in_read(in_ends[0]), in_write(in_ends[1]);
  request.fds.emplace_back(0, in_read.get());
  request.fds.emplace_back(1, out_write.get());
  request.fds.emplace_back(2, err_write.get());

  struct sigaction ignore {
  }, before{};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, &before);
  Child child = spawn(request);
  in_read.reset();
  out_write.reset();
  err_write.reset();
  if (in_write) ::fcntl(in_write.get(), F_SETFL, O_NONBLOCK);

  Captured result;
  char buffer[16384];
  const auto drain = [&](Fd& from, std::string& into) {
    const ssize_t count = ::read(from.get(), buffer, sizeof buffer);
    if (count > 0 && into.size() < kMaxCapture) into.append(buffer, static_cast<size_t>(count));
    if (count == 0 || (count < 0 && errno != EINTR)) from.reset();
  };
  while (out_read || err_read) {
    pollfd fds[3] = {{out_read.get(), POLLIN, 0}, {err_read.get(), POLLIN, 0}, {in_write.get(), POLLOUT, 0}};
    if (::poll(fds, 3, -1) < 0 && errno != EINTR) throw_errno("wait for {}", request.path);
    if (fds[0].revents != 0) drain(out_read, result.out);
    if (fds[1].revents != 0) drain(err_read, result.err);
    if (in_write && fds[2].revents != 0) {
      const ssize_t count = ::write(in_write.get(), input.data(), input.size());
      if (count > 0) input.remove_prefix(static_cast<size_t>(count));
      if (input.empty() || (count < 0 && errno != EAGAIN && errno != EINTR)) in_write.reset();
    }
  }
  ::sigaction(SIGPIPE, &before, nullptr);
  result.status = child.wait();
  return result;
}

}  // namespace kelp::sys
