#pragma once

// Which system calls of a program can make a difference to those that come after its death. A kill in front of one that
// cannot is the same as a kill in front of the next one that can, so a sweep need not try both.

#include <fcntl.h>
#include <linux/sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <cstdint>

enum class Trace {
  leaves,     ///< changes files, other processes or what they see, or waits for others, which go on meanwhile
  none,       ///< see `why`
  sometimes,  ///< by its arguments: leaves_trace() in kill_at.cc
};

struct SystemCall {
  long number;
  const char* name;
  Trace trace;
  const char* why = "";
};

namespace calls {

constexpr const char* kOwn = "its memory, threads, limits, ids and signals end with the process";
constexpr const char* kLooks = "it only looks";
constexpr const char* kDescriptors =
    "descriptors, and what only they hold, are closed by the end of the process as well";
constexpr const char* kLock = "a lock ends with the process";
constexpr const char* kSync =
    "what was written is the kernel's already; the tests with a power cut are those of tests/vm";

// A name that this kernel's headers or this architecture do not have is left out.
#define KELP_CALL(name, ...) \
  { SYS_##name, #name, __VA_ARGS__ }

constexpr SystemCall kCalls[] = {
    KELP_CALL(brk, Trace::none, kOwn),
    KELP_CALL(munmap, Trace::none, kOwn),
    KELP_CALL(mprotect, Trace::none, kOwn),
    KELP_CALL(madvise, Trace::none, kOwn),
    KELP_CALL(mremap, Trace::none, kOwn),
    KELP_CALL(futex, Trace::none, kOwn),
    KELP_CALL(set_robust_list, Trace::none, kOwn),
    KELP_CALL(set_tid_address, Trace::none, kOwn),
    KELP_CALL(rseq, Trace::none, kOwn),
    KELP_CALL(rt_sigaction, Trace::none, kOwn),
    KELP_CALL(rt_sigprocmask, Trace::none, kOwn),
    KELP_CALL(rt_sigreturn, Trace::none, kOwn),
    KELP_CALL(sigaltstack, Trace::none, kOwn),
    KELP_CALL(sched_yield, Trace::none, kOwn),
    KELP_CALL(sched_getaffinity, Trace::none, kLooks),
    KELP_CALL(prlimit64, Trace::none, kOwn),
    KELP_CALL(prctl, Trace::none, kOwn),
    KELP_CALL(umask, Trace::none, kOwn),
    KELP_CALL(chdir, Trace::none, kOwn),
    KELP_CALL(fchdir, Trace::none, kOwn),
    KELP_CALL(capset, Trace::none, kOwn),
    KELP_CALL(setuid, Trace::none, kOwn),
    KELP_CALL(setgid, Trace::none, kOwn),
    KELP_CALL(setresuid, Trace::none, kOwn),
    KELP_CALL(setresgid, Trace::none, kOwn),
    KELP_CALL(setgroups, Trace::none, kOwn),
    KELP_CALL(exit, Trace::none, kOwn),  // of one thread
#ifdef SYS_arch_prctl
    KELP_CALL(arch_prctl, Trace::none, kOwn),
#endif
    KELP_CALL(getrandom, Trace::none, kLooks),
    KELP_CALL(getpid, Trace::none, kLooks),
    KELP_CALL(getppid, Trace::none, kLooks),
    KELP_CALL(gettid, Trace::none, kLooks),
    KELP_CALL(getuid, Trace::none, kLooks),
    KELP_CALL(geteuid, Trace::none, kLooks),
    KELP_CALL(getgid, Trace::none, kLooks),
    KELP_CALL(getegid, Trace::none, kLooks),
    KELP_CALL(getresuid, Trace::none, kLooks),
    KELP_CALL(getgroups, Trace::none, kLooks),
    KELP_CALL(capget, Trace::none, kLooks),
    KELP_CALL(uname, Trace::none, kLooks),
    KELP_CALL(sysinfo, Trace::none, kLooks),
    KELP_CALL(getcwd, Trace::none, kLooks),
    KELP_CALL(clock_gettime, Trace::none, kLooks),
    KELP_CALL(fstat, Trace::none, kLooks),
    KELP_CALL(newfstatat, Trace::none, kLooks),
    KELP_CALL(statx, Trace::none, kLooks),
    KELP_CALL(statfs, Trace::none, kLooks),
    KELP_CALL(fstatfs, Trace::none, kLooks),
    KELP_CALL(faccessat, Trace::none, kLooks),
    KELP_CALL(faccessat2, Trace::none, kLooks),
    KELP_CALL(readlinkat, Trace::none, kLooks),
    KELP_CALL(getdents64, Trace::none, kLooks),
    KELP_CALL(getxattr, Trace::none, kLooks),
    KELP_CALL(lgetxattr, Trace::none, kLooks),
    KELP_CALL(fgetxattr, Trace::none, kLooks),
    KELP_CALL(listxattr, Trace::none, kLooks),
    KELP_CALL(llistxattr, Trace::none, kLooks),
    KELP_CALL(flistxattr, Trace::none, kLooks),
    KELP_CALL(fadvise64, Trace::none, kLooks),
    KELP_CALL(pread64, Trace::none, kLooks),
    KELP_CALL(preadv, Trace::none, kLooks),
#ifdef SYS_stat
    KELP_CALL(stat, Trace::none, kLooks),
    KELP_CALL(lstat, Trace::none, kLooks),
    KELP_CALL(access, Trace::none, kLooks),
    KELP_CALL(readlink, Trace::none, kLooks),
#endif
    KELP_CALL(close, Trace::none, kDescriptors),
    KELP_CALL(close_range, Trace::none, kDescriptors),
    KELP_CALL(dup, Trace::none, kDescriptors),
    KELP_CALL(dup3, Trace::none, kDescriptors),
#ifdef SYS_dup2
    KELP_CALL(dup2, Trace::none, kDescriptors),
    KELP_CALL(pipe, Trace::none, kDescriptors),
    KELP_CALL(epoll_create, Trace::none, kDescriptors),
#endif
    KELP_CALL(lseek, Trace::none, kDescriptors),
    KELP_CALL(pipe2, Trace::none, kDescriptors),
    KELP_CALL(socket, Trace::none, kDescriptors),
    KELP_CALL(socketpair, Trace::none, kDescriptors),
    KELP_CALL(setsockopt, Trace::none, kDescriptors),
    KELP_CALL(getsockopt, Trace::none, kLooks),
    KELP_CALL(getsockname, Trace::none, kLooks),
    KELP_CALL(getpeername, Trace::none, kLooks),
    KELP_CALL(eventfd2, Trace::none, kDescriptors),
    KELP_CALL(epoll_create1, Trace::none, kDescriptors),
    KELP_CALL(epoll_ctl, Trace::none, kDescriptors),
    KELP_CALL(memfd_create, Trace::none, kDescriptors),
    KELP_CALL(pidfd_open, Trace::none, kDescriptors),
    KELP_CALL(signalfd4, Trace::none, kDescriptors),
    KELP_CALL(timerfd_create, Trace::none, kDescriptors),
    KELP_CALL(timerfd_settime, Trace::none, kDescriptors),
    KELP_CALL(flock, Trace::none, kLock),
    KELP_CALL(fsync, Trace::none, kSync),
    KELP_CALL(fdatasync, Trace::none, kSync),
    KELP_CALL(sync_file_range, Trace::none, kSync),
    KELP_CALL(syncfs, Trace::none, kSync),
    // By their arguments.
    KELP_CALL(openat, Trace::sometimes),
    KELP_CALL(openat2, Trace::sometimes),
#ifdef SYS_open
    KELP_CALL(open, Trace::sometimes),
#endif
    KELP_CALL(mmap, Trace::sometimes),
    KELP_CALL(fcntl, Trace::sometimes),
    KELP_CALL(read, Trace::sometimes),
    KELP_CALL(readv, Trace::sometimes),
    KELP_CALL(clone, Trace::sometimes),
    KELP_CALL(clone3, Trace::sometimes),
    // Those that count.
    KELP_CALL(write, Trace::leaves),
    KELP_CALL(writev, Trace::leaves),
    KELP_CALL(pwrite64, Trace::leaves),
    KELP_CALL(pwritev, Trace::leaves),
    KELP_CALL(sendto, Trace::leaves),
    KELP_CALL(sendmsg, Trace::leaves),
    KELP_CALL(sendfile, Trace::leaves),
    KELP_CALL(splice, Trace::leaves),
    KELP_CALL(tee, Trace::leaves),
    KELP_CALL(copy_file_range, Trace::leaves),
    KELP_CALL(ftruncate, Trace::leaves),
    KELP_CALL(fallocate, Trace::leaves),
    KELP_CALL(mkdirat, Trace::leaves),
    KELP_CALL(mknodat, Trace::leaves),
    KELP_CALL(symlinkat, Trace::leaves),
    KELP_CALL(linkat, Trace::leaves),
    KELP_CALL(unlinkat, Trace::leaves),
    KELP_CALL(renameat, Trace::leaves),
    KELP_CALL(renameat2, Trace::leaves),
    KELP_CALL(fchmod, Trace::leaves),
    KELP_CALL(fchmodat, Trace::leaves),
    KELP_CALL(fchown, Trace::leaves),
    KELP_CALL(fchownat, Trace::leaves),
    KELP_CALL(utimensat, Trace::leaves),
    KELP_CALL(setxattr, Trace::leaves),
    KELP_CALL(lsetxattr, Trace::leaves),
    KELP_CALL(fsetxattr, Trace::leaves),
    KELP_CALL(lremovexattr, Trace::leaves),
    KELP_CALL(fremovexattr, Trace::leaves),
#ifdef SYS_mkdir
    KELP_CALL(mkdir, Trace::leaves),
    KELP_CALL(rmdir, Trace::leaves),
    KELP_CALL(unlink, Trace::leaves),
    KELP_CALL(rename, Trace::leaves),
    KELP_CALL(link, Trace::leaves),
    KELP_CALL(symlink, Trace::leaves),
    KELP_CALL(chmod, Trace::leaves),
    KELP_CALL(chown, Trace::leaves),
    KELP_CALL(lchown, Trace::leaves),
    KELP_CALL(fork, Trace::leaves),
    KELP_CALL(vfork, Trace::leaves),
    KELP_CALL(poll, Trace::leaves),
    KELP_CALL(select, Trace::leaves),
    KELP_CALL(epoll_wait, Trace::leaves),
#endif
    KELP_CALL(execve, Trace::leaves),
    KELP_CALL(exit_group, Trace::leaves),  // all is done, and nobody was told
    KELP_CALL(kill, Trace::leaves),
    KELP_CALL(tgkill, Trace::leaves),
    KELP_CALL(pidfd_send_signal, Trace::leaves),
    KELP_CALL(setsid, Trace::leaves),
    KELP_CALL(setpgid, Trace::leaves),
    KELP_CALL(unshare, Trace::leaves),
    KELP_CALL(setns, Trace::leaves),
    KELP_CALL(mount, Trace::leaves),
    KELP_CALL(umount2, Trace::leaves),
    KELP_CALL(open_tree, Trace::leaves),
    KELP_CALL(move_mount, Trace::leaves),
    KELP_CALL(fsopen, Trace::leaves),
    KELP_CALL(fsconfig, Trace::leaves),
    KELP_CALL(fsmount, Trace::leaves),
    KELP_CALL(ioctl, Trace::leaves),
    KELP_CALL(connect, Trace::leaves),
    KELP_CALL(bind, Trace::leaves),
    KELP_CALL(listen, Trace::leaves),
    KELP_CALL(accept4, Trace::leaves),
    KELP_CALL(shutdown, Trace::leaves),
    KELP_CALL(recvfrom, Trace::leaves),
    KELP_CALL(recvmsg, Trace::leaves),
    KELP_CALL(ppoll, Trace::leaves),
    KELP_CALL(pselect6, Trace::leaves),
    KELP_CALL(epoll_pwait, Trace::leaves),
    KELP_CALL(wait4, Trace::leaves),
    KELP_CALL(waitid, Trace::leaves),
    KELP_CALL(nanosleep, Trace::leaves),
    KELP_CALL(clock_nanosleep, Trace::leaves),
    KELP_CALL(sendmmsg, Trace::leaves),
};
#undef KELP_CALL

inline const SystemCall* find(long number) {
  for (const SystemCall& call : kCalls)
    if (call.number == number) return &call;
  return nullptr;
}

}  // namespace calls
