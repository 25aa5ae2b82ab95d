#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <utility>

#include "base/owned.h"

namespace kelp::sys {

/// Owner of a child process: its pid and a pidfd. The destructor kills and reaps; detach() lets it live.
///
/// With CloneOptions::parent the process is a child of our own parent: it can be killed here, but not waited for.
struct Child {
  pid_t pid = -1;
  Fd pidfd;

  Child() = default;
  Child(pid_t the_pid, Fd the_pidfd) noexcept : pid(the_pid), pidfd(std::move(the_pidfd)) {}
  Child(Child&& other) noexcept : pid(std::exchange(other.pid, -1)), pidfd(std::move(other.pidfd)) {}
  Child& operator=(Child&& other) noexcept;
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child();

  [[nodiscard]] bool valid() const noexcept { return pid > 0; }
  /// Waits for the end and reaps. Returns the exit code, 128 + n for signal n. Not valid() afterwards.
  int wait();
  /// As wait(), nullopt when it still runs after `milliseconds` (0 = look only).
  std::optional<int> wait_for(int milliseconds);
  /// SIGKILL and reap; does nothing when not valid().
  void kill() noexcept;
  /// Gives up the ownership: the process goes on, whoever is its parent reaps it.
  void detach() noexcept {
    pid = -1;
    pidfd.reset();
  }
};

struct CloneOptions {
  int cgroup_fd = -1;    ///< borrowed cgroup v2 directory: CLONE_INTO_CGROUP
  int exit_signal = 17;  ///< SIGCHLD; 0 = none (then wait with __WALL, as Child::wait() does)
  bool parent = false;   ///< CLONE_PARENT: the child becomes our sibling
};

namespace detail {
/// Raw clone3 with CLONE_PIDFD; the result has pid 0 in the child.
Child clone_process(std::uint64_t flags, const CloneOptions& options);
/// Runs body(context) and ends the process with its result; an exception is logged and ends it with 125.
[[noreturn]] void run_child(int (*body)(void*), void* context) noexcept;
}  // namespace detail

/// Clones a child that runs `body` (a callable returning int) and exits with its result.
///
/// clone_flags  CLONE_NEW* and the like; CLONE_PIDFD is added, CLONE_VM and CLONE_THREAD must not be there
/// throws       SysError with the errno of clone3 (EPERM no right, ENOSPC too many namespaces, EUSERS…)
/// before       the process has one thread (checked), so ordinary C++ may run in the child
/// source       clone(2)
template <typename Fn>
Child clone_child(std::uint64_t clone_flags, Fn&& body, const CloneOptions& options = {}) {
  Child child = detail::clone_process(clone_flags, options);
  if (child.pid != 0) return child;
  using Body = std::remove_reference_t<Fn>;
  detail::run_child([](void* context) -> int { return (*static_cast<Body*>(context))(); },
                    const_cast<void*>(static_cast<const void*>(&body)));
}

/// pidfd of a process; throws SysError(ESRCH) when it is gone, also when its number is a thread's now.
Fd pidfd_open(pid_t pid);
/// true until the process has ended (a zombie counts as ended, whether it was reaped or not).
bool pidfd_alive(int pidfd) noexcept;
/// Sends a signal; throws SysError(ESRCH) when the process is gone.
void pidfd_send_signal(int pidfd, int sig);
/// Exit code of a wait status: WEXITSTATUS, or 128 + n for signal n.
int wait_status_code(int wstatus) noexcept;

}  // namespace kelp::sys
