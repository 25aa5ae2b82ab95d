#include "sys/clone.h"

#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/single_threaded.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "base/error.h"
#include "base/log.h"

namespace kelp::sys {
namespace {

/// Reaps pid; nullopt when it still runs (WNOHANG). __WALL: a clone with exit_signal 0 is no ordinary child.
std::optional<int> reap(pid_t pid, int options) {
  int status = 0;
  for (;;) {
    const pid_t got = ::waitpid(pid, &status, options | __WALL);
    if (got == pid) return wait_status_code(status);
    if (got == 0) return std::nullopt;
    if (errno != EINTR) throw_errno("wait for process {}", pid);
  }
}

}  // namespace

Child& Child::operator=(Child&& other) noexcept {
  if (this != &other) {
    kill();
    pid = std::exchange(other.pid, -1);
    pidfd = std::move(other.pidfd);
  }
  return *this;
}

Child::~Child() { kill(); }

int Child::wait() {
  const int code = *reap(pid, 0);
  detach();
  return code;
}

std::optional<int> Child::wait_for(int milliseconds) {
  pollfd poll_for{pidfd.get(), POLLIN, 0};
  int ready = 0;
  do {
    ready = ::poll(&poll_for, 1, milliseconds);
  } while (ready < 0 && errno == EINTR);
  if (ready <= 0) return std::nullopt;
  return wait();
}

void Child::kill() noexcept {
  if (pid <= 0) return;
  ::syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0);
  int status = 0;
  while (::waitpid(pid, &status, __WALL) < 0 && errno == EINTR) {
  }
  detach();
}

namespace detail {
namespace {

/// Seccomp filters cannot look into the argument of clone3, so container engines say ENOSYS to it and filter clone.
long old_clone(const clone_args& args, int& pidfd) {
  if ((args.flags & CLONE_INTO_CGROUP) != 0 || args.flags > UINT32_MAX || (args.flags & CSIGNAL) != 0) {
    errno = ENOSYS;
    return -1;
  }
  const unsigned long flags = args.flags | args.exit_signal;
#if defined(__s390__) || defined(__CRIS__)
  return ::syscall(SYS_clone, 0, flags, &pidfd, 0, 0);
#else
  return ::syscall(SYS_clone, flags, 0, &pidfd, 0, 0);
#endif
}

}  // namespace

Child clone_process(std::uint64_t flags, const CloneOptions& options) {
  if (!__libc_single_threaded) throw_error("clone: this process has more than one thread");
  int pidfd = -1;
  clone_args args{};
  args.flags = flags | CLONE_PIDFD;
  args.pidfd = reinterpret_cast<std::uintptr_t>(&pidfd);
  if (options.parent) {
    args.flags |= CLONE_PARENT;  // the kernel takes the exit signal from our own
  } else {
    args.exit_signal = static_cast<unsigned>(options.exit_signal);
  }
  if (options.cgroup_fd >= 0) {
    args.flags |= CLONE_INTO_CGROUP;
    args.cgroup = static_cast<unsigned>(options.cgroup_fd);
  }
  long pid = ::syscall(SYS_clone3, &args, sizeof args);
  if (pid < 0 && errno == ENOSYS) pid = old_clone(args, pidfd);
  if (pid < 0) throw_errno("clone a process");
  Child child;
  child.pid = static_cast<pid_t>(pid);
  if (pid > 0) child.pidfd = Fd(pidfd);
  return child;
}

void run_child(int (*body)(void*), void* context) noexcept {
  int code = kExitFailure;
  try {
    code = body(context);
  } catch (const Error& error) {
    log::error("{}", error.message());
    if (!error.hint().empty()) log::error("hint: {}", error.hint());
    code = error.exit_code();
  } catch (const std::exception& error) {
    log::error("{}", error.what());
  }
  ::_exit(code);
}

}  // namespace detail

Fd pidfd_open(pid_t pid) {
  const long fd = ::syscall(SYS_pidfd_open, pid, 0);
  if (fd < 0) {
    // The number may by now be a thread's: EINVAL, since Linux 6.9 ENOENT. Then there is no such process either.
    if (pid > 0 && (errno == EINVAL || errno == ENOENT)) errno = ESRCH;
    throw_errno("open process {}", pid);
  }
  return Fd(static_cast<int>(fd));
}

bool pidfd_alive(int pidfd) noexcept {
  pollfd poll_for{pidfd, POLLIN, 0};
  return ::poll(&poll_for, 1, 0) == 0;
}

void pidfd_send_signal(int pidfd, int sig) {
  if (::syscall(SYS_pidfd_send_signal, pidfd, sig, nullptr, 0) < 0) throw_errno("send signal {}", sig);
}

int wait_status_code(int wstatus) noexcept {
  return WIFSIGNALED(wstatus) ? 128 + WTERMSIG(wstatus) : WEXITSTATUS(wstatus);
}

}  // namespace kelp::sys
