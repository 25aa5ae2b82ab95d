// kill_at LOG N PROGRAM ARG…: runs PROGRAM in this process and kills it, as SIGKILL does, as it enters its N-th system
// call; N = 0 lets it end. LOG gets one line per system call: its number. Threads count along, child processes do not
// (a traced newuidmap would have no privilege). With KILL_AT_VICTIM=PID in the environment it is that process that
// dies, and PROGRAM goes on once it has. With KILL_AT_HOLD=FIFO nothing dies: PROGRAM stands still in front of that
// call from when FIFO can be opened for writing until it is closed again.
//
// With KILL_AT_TRACES=1 only calls count that can leave something behind (system_calls.h), and a line of LOG
// says the name of the call, with "-" in front of one that does not count and "?" of one that no list has, which does.
//
// The tracer is an orphan of its own, so that PROGRAM has the parent, the process number and the children that it has
// without it. strace -D does the same, but now and then loses its tracee at the exec ("Stray PTRACE_EVENT_EXEC").

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "system_calls.h"

namespace {

constexpr unsigned long kOptions = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_TRACECLONE;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "kill_at: %s: %s\n", what, std::strerror(errno));
  ::_exit(125);
}

void kill_and_wait(pid_t victim) {
  const int process = static_cast<int>(::syscall(SYS_pidfd_open, victim, 0));
  if (process < 0) return;  // it has ended by itself
  ::kill(victim, SIGKILL);
  pollfd ended = {process, POLLIN, 0};
  ::poll(&ended, 1, 10000);
  ::close(process);
}

void hold(const char* fifo) {
  const int until_closed = ::open(fifo, O_RDONLY | O_CLOEXEC);
  char none = 0;
  while (::read(until_closed, &none, 1) > 0) {
  }
  ::close(until_closed);
}

// The first word of what an argument points to: the flags of open_how and clone_args. All bits where it cannot be read.
std::uint64_t word_at(pid_t pid, std::uint64_t address) {
  errno = 0;
  const long word = ::ptrace(PTRACE_PEEKDATA, pid, address, nullptr);
  return errno == 0 ? static_cast<std::uint64_t>(word) : ~0ULL;
}

// A pipe, a socket and the like: who reads from them may wait for others.
bool is_plain_file(pid_t pid, std::uint64_t fd) {
  char link[64];
  std::snprintf(link, sizeof link, "/proc/%d/fd/%llu", pid, static_cast<unsigned long long>(fd));
  char target[2] = {};
  return ::readlink(link, target, sizeof target) > 0 && target[0] == '/';
}

bool leaves_trace(const SystemCall& call, pid_t pid, const std::uint64_t* args) {
  if (call.trace != Trace::sometimes) return call.trace == Trace::leaves;
  constexpr std::uint64_t kMakes = O_CREAT | O_TRUNC;
  switch (call.number) {
#ifdef SYS_open
    case SYS_open:
      return (args[1] & kMakes) != 0;
#endif
    case SYS_openat:
      return (args[2] & kMakes) != 0;
    case SYS_openat2:
      return (word_at(pid, args[2]) & kMakes) != 0;
    case SYS_mmap:
      return (args[2] & PROT_WRITE) != 0 && (args[3] & MAP_ANONYMOUS) == 0 && (args[3] & MAP_TYPE) != MAP_PRIVATE;
    case SYS_fcntl:
      return args[1] == F_SETFL;  // belongs to all who have the file open
    case SYS_read:
    case SYS_readv:
      return !is_plain_file(pid, args[0]);
    case SYS_clone:
      return (args[0] & CLONE_THREAD) == 0;
    case SYS_clone3:
      return (word_at(pid, args[0]) & CLONE_THREAD) == 0;
    default:
      return true;
  }
}

// Writes the call's line; whether it counts.
bool note(int log, pid_t pid, const __ptrace_syscall_info& info, bool traces_only) {
  if (!traces_only) {
    ::dprintf(log, "%lu\n", static_cast<unsigned long>(info.entry.nr));
    return true;
  }
  const SystemCall* call = calls::find(static_cast<long>(info.entry.nr));
  if (call == nullptr) {
    ::dprintf(log, "?%lu\n", static_cast<unsigned long>(info.entry.nr));
    return true;
  }
  const bool counts = leaves_trace(*call, pid, info.entry.args);
  ::dprintf(log, "%s%s\n", counts ? "" : "-", call->name);
  return counts;
}

// Follows the process until it has died. Calls are counted from its exec on.
[[noreturn]] void trace(pid_t program, long nth, int log, int attached) {
  if (::ptrace(PTRACE_SEIZE, program, nullptr, kOptions) < 0) fail("seize");
  if (::write(attached, "+", 1) != 1) fail("report");
  ::close(attached);
  ::close(STDERR_FILENO);
  const bool traces_only = std::getenv("KILL_AT_TRACES") != nullptr;
  bool counting = false;
  long count = 0;
  for (;;) {
    int status = 0;
    const pid_t pid = ::waitpid(-1, &status, __WALL);
    if (pid < 0) {
      if (errno == EINTR) continue;
      ::_exit(0);  // ECHILD: all of its threads are gone
    }
    if (!WIFSTOPPED(status)) continue;
    // A child made by a clone without SIGCHLD looks like a thread to PTRACE_O_TRACECLONE.
    if (::syscall(SYS_tgkill, program, pid, 0) < 0) {
      ::ptrace(PTRACE_DETACH, pid, nullptr, nullptr);
      continue;
    }
    const int signal = WSTOPSIG(status);
    const int event = status >> 16;
    unsigned long pass_on = 0;
    if (signal == (SIGTRAP | 0x80)) {
      struct __ptrace_syscall_info info = {};
      if (::ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info) > 0 && info.op == PTRACE_SYSCALL_INFO_ENTRY &&
          counting) {
        if (note(log, pid, info, traces_only) && ++count == nth) {
          if (const char* fifo = std::getenv("KILL_AT_HOLD")) {
            hold(fifo);
          } else if (const char* victim = std::getenv("KILL_AT_VICTIM")) {
            kill_and_wait(static_cast<pid_t>(std::strtol(victim, nullptr, 10)));
          } else {
            ::kill(program, SIGKILL);
            continue;
          }
        }
      }
    } else if (event == PTRACE_EVENT_EXEC) {
      counting = true;
    } else if (event == PTRACE_EVENT_STOP &&
               (signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU)) {
      ::ptrace(PTRACE_LISTEN, pid, nullptr, nullptr);
      continue;
    } else if (event == 0) {
      pass_on = static_cast<unsigned long>(signal);
    }
    ::ptrace(PTRACE_SYSCALL, pid, nullptr, pass_on);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fputs("usage: kill_at LOG N PROGRAM ARG...\n", stderr);
    return 125;
  }
  const int log = ::open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log < 0) fail(argv[1]);
  int attached[2];
  if (::pipe2(attached, O_CLOEXEC) < 0) fail("pipe");
  const pid_t program = ::getpid();
  ::prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
  const pid_t between = ::fork();
  if (between < 0) fail("fork");
  if (between == 0) {
    if (::fork() != 0) ::_exit(0);
    ::setsid();
    // None of the descriptors that it would hold open for the program.
    for (int fd = 0; fd < 1024; ++fd) {
      if (fd != log && fd != attached[1] && fd != STDERR_FILENO) ::close(fd);
    }
    trace(program, std::strtol(argv[2], nullptr, 10), log, attached[1]);
  }
  ::waitpid(between, nullptr, 0);
  ::close(attached[1]);
  char byte = 0;
  if (::read(attached[0], &byte, 1) != 1) return 125;  // the tracer has said why
  ::execv(argv[3], argv + 3);
  fail(argv[3]);
}
