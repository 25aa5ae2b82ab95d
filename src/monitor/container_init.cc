// kelp-init: process 1 of a container started with --init. It starts the command, hands every signal on to it, reaps
// whatever is left to process 1, and ends with the command's status. Bound read-only into the container, where no
// library of the host exists: static, and without anything but libc.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <initializer_list>

namespace {

[[noreturn]] void run_command(char** command, const sigset_t& signals) {
  // A process group of its own: what the terminal sends to the foreground reaches the command once, not through us too.
  ::setpgid(0, 0);
  if (::isatty(STDIN_FILENO) != 0) {
    ::signal(SIGTTOU, SIG_IGN);
    ::tcsetpgrp(STDIN_FILENO, ::getpid());
    ::signal(SIGTTOU, SIG_DFL);
  }
  ::sigprocmask(SIG_SETMASK, &signals, nullptr);
  ::execvp(command[0], command);
  const int saved = errno;
  ::dprintf(STDERR_FILENO, "kelp-init: %s: %s\n", command[0], ::strerror(saved));
  ::_exit(saved == ENOENT || saved == ENOTDIR ? 127 : 126);
}

int status_code(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

}  // namespace

int main(int argc, char** argv) {
  char** command = argv + 1;
  if (argc > 1 && std::strcmp(argv[1], "--") == 0) ++command;
  if (*command == nullptr) {
    ::dprintf(STDERR_FILENO, "usage: kelp-init [--] COMMAND [ARG...]\n");
    return 125;
  }
  // Blocked before the fork: nothing that arrives early is lost. Faults of our own keep their effect.
  sigset_t all;
  sigset_t old;
  ::sigfillset(&all);
  for (const int fault : {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGABRT, SIGTRAP, SIGSYS}) ::sigdelset(&all, fault);
  ::sigprocmask(SIG_SETMASK, &all, &old);
  const pid_t child = ::fork();
  if (child < 0) {
    ::dprintf(STDERR_FILENO, "kelp-init: fork: %s\n", ::strerror(errno));
    return 125;
  }
  if (child == 0) run_command(command, old);
  for (;;) {
    siginfo_t info;
    const int signal = ::sigwaitinfo(&all, &info);
    if (signal < 0) continue;
    if (signal != SIGCHLD) {
      // Job control of the terminal is the command's affair; SIGTTIN and SIGTTOU would be about us.
      if (signal != SIGTTIN && signal != SIGTTOU) ::kill(child, signal);
      continue;
    }
    int status = 0;
    int code = -1;
    for (pid_t ended = 0; (ended = ::waitpid(-1, &status, WNOHANG)) > 0;)
      if (ended == child) code = status_code(status);
    if (code >= 0) return code;
  }
}
