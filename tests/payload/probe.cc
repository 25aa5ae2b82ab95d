// The payload of the runtime tests: a static program that tells what a container's process is and can do.
//
//   probe VERB ARGUMENT… [";" VERB ARGUMENT…]…
//
// Each verb prints one line (info prints one JSON object); a failed call prints "errno N NAME: text" and goes on, so
// that one container can try several things.
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/ioprio.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

std::string quote(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    char escaped[8];
    if (c == '"' || c == '\\' || byte < 0x20) {
      std::snprintf(escaped, sizeof escaped, "\\u%04x", byte);
      out += escaped;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

/// A JSON object under construction.
struct Json {
  std::string text;
  void raw(const char* key, const std::string& value) { text += (text.empty() ? "{" : ",") + quote(key) + ":" + value; }
  void string(const char* key, const std::string& value) { raw(key, quote(value)); }
  void number(const char* key, long long value) { raw(key, std::to_string(value)); }
  std::string end() const { return text.empty() ? "{}" : text + "}"; }
};

std::string list(const std::vector<std::string>& items) {
  std::string out = "[";
  for (const std::string& item : items) out += (out.size() > 1 ? "," : "") + item;
  return out + "]";
}

std::string read_all(const char* path) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  std::string text;
  char buffer[4096];
  ssize_t n;
  while ((n = ::read(fd, buffer, sizeof buffer)) > 0) text.append(buffer, static_cast<size_t>(n));
  ::close(fd);
  return text;
}

/// Value of a line "Key:\tvalue" of /proc/self/status.
std::string status_value(const std::string& status, const char* key) {
  const size_t at = status.find(std::string(key) + ":\t");
  if (at == std::string::npos) return "";
  const size_t start = at + std::strlen(key) + 2;
  return status.substr(start, status.find('\n', start) - start);
}

std::string link_of(const std::string& path) {
  char target[512];
  const ssize_t n = ::readlink(path.c_str(), target, sizeof target);
  return n < 0 ? "" : std::string(target, static_cast<size_t>(n));
}

std::string open_descriptors() {
  std::vector<std::string> numbers;
  for (int fd = 0; fd < 1024; ++fd)
    if (::fcntl(fd, F_GETFD) >= 0) numbers.push_back(std::to_string(fd));
  return list(numbers);
}

std::string limits() {
  static const char* const names[] = {"CPU",      "FSIZE",  "DATA",    "STACK", "CORE",  "RSS",
                                      "NPROC",    "NOFILE", "MEMLOCK", "AS",    "LOCKS", "SIGPENDING",
                                      "MSGQUEUE", "NICE",   "RTPRIO",  "RTTIME"};
  Json out;
  for (int i = 0; i < 16; ++i) {
    rlimit limit{};
    ::getrlimit(static_cast<__rlimit_resource>(i), &limit);
    const auto text = [](rlim_t value) { return value == RLIM_INFINITY ? std::string("-1") : std::to_string(value); };
    out.raw(names[i], list({text(limit.rlim_cur), text(limit.rlim_max)}));
  }
  return out.end();
}

void info() {
  const std::string status = read_all("/proc/self/status");
  Json out;
  out.number("pid", ::getpid());
  out.number("ppid", ::getppid());
  out.number("sid", ::getsid(0));
  uid_t r, e, s;
  ::getresuid(&r, &e, &s);
  out.raw("uids", list({std::to_string(r), std::to_string(e), std::to_string(s)}));
  ::getresgid(&r, &e, &s);
  out.raw("gids", list({std::to_string(r), std::to_string(e), std::to_string(s)}));
  gid_t groups[256];
  const int count = ::getgroups(256, groups);
  std::vector<std::string> group_texts;
  for (int i = 0; i < count; ++i) group_texts.push_back(std::to_string(groups[i]));
  out.raw("groups", list(group_texts));
  const mode_t mask = ::umask(0);
  ::umask(mask);
  out.number("umask", mask);
  for (const char* name :
       {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "SigBlk", "SigIgn"})
    out.string(name, status_value(status, name));
  char cwd[4096] = "";
  out.string("cwd", ::getcwd(cwd, sizeof cwd) == nullptr ? "" : cwd);
  utsname host{};
  ::uname(&host);
  out.string("hostname", host.nodename);
  out.string("domainname", host.domainname);
  out.string("machine", host.machine);
  std::vector<std::string> env;
  for (char** entry = environ; *entry != nullptr; ++entry) env.push_back(quote(*entry));
  out.raw("env", list(env));
  out.raw("fds", open_descriptors());
  out.raw("rlimits", limits());
  Json namespaces;
  for (const char* name : {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"})
    namespaces.string(name, link_of(std::string("/proc/self/ns/") + name));
  out.raw("ns", namespaces.end());
  out.string("uid_map", read_all("/proc/self/uid_map"));
  out.string("gid_map", read_all("/proc/self/gid_map"));
  out.string("setgroups", read_all("/proc/self/setgroups"));
  out.string("cgroup", read_all("/proc/self/cgroup"));
  out.string("oom_score_adj", read_all("/proc/self/oom_score_adj"));
  out.string("comm", read_all("/proc/self/comm"));
  out.number("tty", ::isatty(0));
  out.number("nice", ::getpriority(PRIO_PROCESS, 0));
  out.number("policy", ::sched_getscheduler(0));
  out.number("ioprio", ::syscall(SYS_ioprio_get, 1, 0));
  out.number("personality", ::personality(0xffffffff));
  cpu_set_t cpus;
  std::vector<std::string> allowed;
  if (::sched_getaffinity(0, sizeof cpus, &cpus) == 0)
    for (size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      if (CPU_ISSET(cpu, &cpus)) allowed.push_back(std::to_string(cpu));
  out.raw("cpus", list(allowed));
  int policy = -1;
  ::syscall(SYS_get_mempolicy, &policy, nullptr, 0, nullptr, 0);
  out.number("mempolicy", policy);
  int death_signal = 0;
  ::prctl(PR_GET_PDEATHSIG, &death_signal);
  out.number("pdeathsig", death_signal);
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  out.number("boottime", now.tv_sec);
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  out.number("monotonic", now.tv_sec);
  std::printf("%s\n", out.end().c_str());
}

void report(long result) {
  if (result >= 0)
    std::printf("ok\n");
  else
    std::printf("errno %d %s: %s\n", errno, strerrorname_np(errno), std::strerror(errno));
}

void stat_path(const char* path, bool follow) {
  struct stat info {};
  if ((follow ? ::stat(path, &info) : ::lstat(path, &info)) < 0) return report(-1);
  Json out;
  const char* type = S_ISDIR(info.st_mode)    ? "dir"
                     : S_ISREG(info.st_mode)  ? "file"
                     : S_ISLNK(info.st_mode)  ? "link"
                     : S_ISCHR(info.st_mode)  ? "char"
                     : S_ISBLK(info.st_mode)  ? "block"
                     : S_ISFIFO(info.st_mode) ? "fifo"
                                              : "socket";
  out.string("type", type);
  out.number("mode", info.st_mode & 07777);
  out.number("uid", info.st_uid);
  out.number("gid", info.st_gid);
  out.number("size", info.st_size);
  out.number("major", major(info.st_rdev));
  out.number("minor", minor(info.st_rdev));
  if (S_ISLNK(info.st_mode)) out.string("target", link_of(path));
  std::printf("%s\n", out.end().c_str());
}

void cat(const char* path) {
  const int fd = std::strcmp(path, "-") == 0 ? 0 : ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return report(-1);
  std::fflush(stdout);
  char buffer[65536];
  ssize_t n;
  while ((n = ::read(fd, buffer, sizeof buffer)) > 0)
    if (::write(1, buffer, static_cast<size_t>(n)) != n) break;
  if (n < 0) report(-1);
  if (fd != 0) ::close(fd);
}

void write_path(const char* path, const std::string& text, int flags) {
  const int fd = ::open(path, O_WRONLY | O_CLOEXEC | flags, 0644);
  if (fd < 0) return report(-1);
  const ssize_t n = ::write(fd, text.data(), text.size());
  report(n);
  ::close(fd);
}

/// Appends what comes on stdin, then a newline.
void save(const char* path) {
  std::string text;
  char buffer[4096];
  ssize_t n;
  while ((n = ::read(0, buffer, sizeof buffer)) > 0) text.append(buffer, static_cast<size_t>(n));
  write_path(path, text + "\n", O_CREAT | O_APPEND);
}

void ls(const char* path) {
  DIR* dir = ::opendir(path);
  if (dir == nullptr) return report(-1);
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(dir))
    if (std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0)
      names.push_back(quote(entry->d_name));
  ::closedir(dir);
  std::printf("%s\n", list(names).c_str());
}

volatile sig_atomic_t g_signal = 0;
void note_signal(int signal) { g_signal = signal; }

/// Waits for a signal and ends with its number.
[[noreturn]] void wait_for_signal() {
  struct sigaction action {};
  action.sa_handler = note_signal;
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2}) ::sigaction(signal, &action, nullptr);
  std::printf("ready\n");
  std::fflush(stdout);
  while (g_signal == 0) ::pause();
  std::_Exit(g_signal);
}

/// Calls that filters, capabilities or namespaces may refuse.
long try_call(const std::string& name) {
  if (name == "unshare-user") return ::unshare(CLONE_NEWUSER);
  if (name == "unshare-mount") return ::unshare(CLONE_NEWNS);
  if (name == "mount-tmpfs") return ::mount("none", "/tmp", "tmpfs", 0, "");
  if (name == "remount-root") return ::mount("", "/", nullptr, MS_REMOUNT | MS_BIND, "");
  if (name == "sethostname") return ::sethostname("renamed", 7);
  if (name == "chroot") return ::chroot("/tmp");
  if (name == "mkdir") return ::mkdir("/tmp/made", 0755);
  if (name == "mknod") return ::mknod("/tmp/node", S_IFCHR | 0600, makedev(1, 3));
  if (name == "chown") return ::chown("/tmp", 1, 1);
  if (name == "setuid-1") return ::setuid(1);
  if (name == "setgroups") {
    const gid_t group = 1;
    return ::setgroups(1, &group);
  }
  if (name == "personality-32") return ::personality(PER_LINUX32);
  if (name == "personality-bad") return ::personality(0x1234);
  if (name == "kexec") return ::syscall(SYS_kexec_load, 0, 0, nullptr, 0);
  if (name == "bpf") return ::syscall(SYS_bpf, 0, nullptr, 0);
  if (name == "add-key") return ::syscall(SYS_add_key, "user", "x", "y", 1, -3);
  if (name == "keyring") return ::syscall(SYS_keyctl, 0, -3, 0);
  if (name == "reboot") return ::syscall(SYS_reboot, 0, 0, 0, nullptr);
  if (name == "socket-inet") return ::socket(AF_INET, SOCK_STREAM, 0);
  if (name == "raw-socket") return ::socket(AF_INET, SOCK_RAW, 1);
  if (name == "ptmx") return ::open("/dev/ptmx", O_RDWR | O_NOCTTY);
  if (name == "tty") return ::open("/dev/tty", O_RDWR);
  if (name == "nice") return ::setpriority(PRIO_PROCESS, 0, -5);
  errno = EINVAL;
  return -1;
}

/// A call that never fails, whatever its argument, in 64 bits as a filter sees it.
long set_umask(const char* value) { return ::syscall(SYS_umask, std::strtoull(value, nullptr, 0)); }

/// The same call by another door into the kernel. i386: the 32-bit entry; x32: the numbers with bit 30 set.
long set_umask_of(const std::string& abi, const char* value) {
  long result = -ENOSYS;
#ifdef __x86_64__
  const long argument = std::strtol(value, nullptr, 0);
  if (abi == "i386")
    asm volatile("int $0x80" : "=a"(result) : "a"(60L), "b"(argument) : "memory");
  else
    asm volatile("syscall" : "=a"(result) : "a"(0x40000000L + SYS_umask), "D"(argument) : "rcx", "r11", "memory");
#endif
  if (result >= 0) return result;
  errno = static_cast<int>(-result);
  return -1;
}

void* umask_in_thread(void* value) {
  set_umask(static_cast<const char*>(value));
  return nullptr;
}

/// What a filter does to one of two threads.
void thread_umask(const char* value) {
  pthread_t thread;
  if (::pthread_create(&thread, nullptr, umask_in_thread, const_cast<char*>(value)) != 0) return report(-1);
  ::pthread_join(thread, nullptr);
  std::printf("the other thread goes on\n");
}

void note_sigsys(int, siginfo_t* info, void*) {
  char line[64];
  const int size =
      std::snprintf(line, sizeof line, "SIGSYS for %s\n", info->si_syscall == SYS_umask ? "umask" : "another call");
  (void)!::write(1, line, static_cast<size_t>(size));
}

void catch_sigsys() {
  struct sigaction action {};
  action.sa_sigaction = note_sigsys;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGSYS, &action, nullptr);
}

/// A child makes the call under our eyes; prints the number that its filter sends to the tracer.
void trace_umask(const char* value) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    ::raise(SIGSTOP);
    ::_exit(set_umask(value) < 0 ? 1 : 0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (::ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL) < 0) return report(-1);
  while (::ptrace(PTRACE_CONT, child, nullptr, nullptr) == 0 && ::waitpid(child, &status, 0) == child &&
         WIFSTOPPED(status)) {
    unsigned long number = 0;
    if (status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8) &&
        ::ptrace(PTRACE_GETEVENTMSG, child, nullptr, &number) == 0)
      std::printf("traced with %lu\n", number);
  }
  std::printf("exit %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

void terminal_size() {
  winsize size{};
  if (::ioctl(0, TIOCGWINSZ, &size) < 0) return report(-1);
  std::printf("%d %d\n", size.ws_row, size.ws_col);
}

/// Leaves a process behind that only the death of the PID namespace ends.
void background(const char* seconds) {
  const pid_t child = ::fork();
  if (child == 0) {
    for (int fd = 0; fd < 3; ++fd) ::close(fd);
    ::sleep(static_cast<unsigned>(std::atoi(seconds)));
    ::_exit(0);
  }
  std::printf("%d\n", child);
}

/// Lines of processes, each of which ends as soon as it has made the next. They end with SIGTERM, and with their group.
[[noreturn]] void fork_away(const char* lines) {
  ::signal(SIGCHLD, SIG_IGN);
  for (int line = std::atoi(lines); line > 0; --line) {
    if (::fork() != 0) continue;
    for (;;) {
      const pid_t next = ::fork();
      if (next > 0) ::_exit(0);
      if (next < 0) ::sched_yield();
    }
  }
  std::printf("ready\n");
  std::fflush(stdout);
  for (;;) ::pause();
}

bool is_number(const char* text) { return *text != '\0' && std::strspn(text, "0123456789") == std::strlen(text); }

long long now_ms() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000LL + time.tv_nsec / 1000000;
}

/// Calls `look` with the number of each process but ourselves, until it returns true or the time is over.
template <typename Fn>
bool each_process_for(double seconds, Fn&& look) {
  const std::string own = std::to_string(::getpid());
  for (const long long end = now_ms() + static_cast<long long>(seconds * 1000); now_ms() < end;) {
    DIR* dir = ::opendir("/proc");
    if (dir == nullptr) return false;
    bool found = false;
    // The time counts here, too: where processes come faster than they are looked at, the directory has no end.
    while (const dirent* entry = found || now_ms() >= end ? nullptr : ::readdir(dir))
      found = is_number(entry->d_name) && entry->d_name != own && look(std::string("/proc/") + entry->d_name);
    ::closedir(dir);
    if (found) return true;
  }
  return false;
}

/// Opens the program of a process that runs another program than we do, lets it go on by opening `pipe`, and tries to
/// write into that program once it has ended.
void overwrite_program(const char* pipe, double seconds) {
  struct stat own {};
  ::stat("/proc/self/exe", &own);
  int program = -1;
  const bool found = each_process_for(seconds, [&](const std::string& process) {
    const int fd = ::open((process + "/exe").c_str(), O_RDONLY | O_CLOEXEC);
    struct stat info {};
    if (fd < 0 || ::fstat(fd, &info) < 0 || (info.st_dev == own.st_dev && info.st_ino == own.st_ino)) {
      if (fd >= 0) ::close(fd);
      return false;
    }
    program = fd;
    return true;
  });
  std::printf(found ? "found\n" : "nothing found\n");
  std::fflush(stdout);
  if (!found) return;
  int writable = -1;
  for (const long long end = now_ms() + static_cast<long long>(seconds * 1000); writable < 0 && now_ms() < end;) {
    writable = ::open(("/proc/self/fd/" + std::to_string(program)).c_str(), O_WRONLY | O_CLOEXEC);
    if (writable < 0 && errno != ETXTBSY) break;
    const int reader = ::open(pipe, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    ::usleep(1000);
    ::close(reader);
    errno = ETXTBSY;
  }
  report(writable < 0 ? -1 : ::write(writable, "#!overwritten\n", 14));
}

/// Looks through every directory that other processes of this pid namespace hold for a file of the host.
void spy(const char* host_file, double seconds) {
  const std::string up = "../../../../../../../../../..";
  bool told = false;
  ::signal(SIGCHLD, SIG_IGN);  // we are the first process, and what others leave here would stay, thousands of them
  each_process_for(seconds, [&](const std::string& process) {
    std::vector<std::string> ways = {process + "/root", process + "/cwd"};
    if (DIR* dir = ::opendir((process + "/fd").c_str())) {
      while (const dirent* entry = ::readdir(dir))
        if (is_number(entry->d_name)) ways.push_back(process + "/fd/" + entry->d_name);
      ::closedir(dir);
    }
    for (const std::string& way : ways) {
      if (::access((way + host_file).c_str(), F_OK) != 0 && ::access((way + "/" + up + host_file).c_str(), F_OK) != 0)
        continue;
      std::printf("host reached by %s\n", way.substr(way.find('/', 6)).c_str());
      std::fflush(stdout);
      told = true;
      return true;
    }
    return false;
  });
  if (!told) std::printf("nothing seen\n");
}

/// Exchanges two names, over and over, until killed.
[[noreturn]] void exchange(const char* one, const char* other) {
  std::printf("ready\n");
  std::fflush(stdout);
  for (;;) {
    if (::renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE) < 0) std::exit(1);
    ::sched_yield();
  }
}

/// Sends each datagram back to where it came from, for ever.
void udp_echo(const char* port) {
  const int link = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(std::atoi(port)));
  if (link < 0 || ::bind(link, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) return report(-1);
  std::puts("listening");
  std::fflush(stdout);
  for (;;) {
    char data[65536];
    sockaddr_storage from{};
    socklen_t length = sizeof from;
    const ssize_t got = ::recvfrom(link, data, sizeof data, 0, reinterpret_cast<sockaddr*>(&from), &length);
    if (got < 0) return report(-1);
    if (::sendto(link, data, static_cast<size_t>(got), 0, reinterpret_cast<sockaddr*>(&from), length) < 0)
      return report(-1);
  }
}

/// Runs one verb; false when it is not known.
bool run(const std::vector<std::string>& words) {
  const std::string& verb = words[0];
  const auto argument = [&](size_t i) { return i < words.size() ? words[i].c_str() : ""; };
  if (verb == "info")
    info();
  else if (verb == "cat")
    cat(argument(1));
  else if (verb == "ls")
    ls(argument(1));
  else if (verb == "stat")
    stat_path(argument(1), true);
  else if (verb == "lstat")
    stat_path(argument(1), false);
  else if (verb == "write")
    write_path(argument(1), argument(2), O_CREAT | O_TRUNC);
  else if (verb == "overwrite")
    write_path(argument(1), argument(2), 0);
  else if (verb == "append")
    write_path(argument(1), std::string(argument(2)) + "\n", O_CREAT | O_APPEND);
  else if (verb == "save")
    save(argument(1));
  else if (verb == "saveenv") {
    std::string text;
    for (char** entry = environ; *entry != nullptr; ++entry) text += std::string(*entry) + "\n";
    write_path(argument(1), text, O_CREAT | O_TRUNC);
  } else if (verb == "open") {
    const int fd = ::open(argument(1), (argument(2)[0] == 'w' ? O_WRONLY : O_RDONLY) | O_NONBLOCK);
    report(fd);
    if (fd >= 0) ::close(fd);
  } else if (verb == "mknod")
    report(
        ::mknod(argument(1), (argument(2)[0] == 'b' ? S_IFBLK : S_IFCHR) | 0666,
                makedev(static_cast<unsigned>(std::atoi(argument(3))), static_cast<unsigned>(std::atoi(argument(4))))));
  else if (verb == "mkdir")
    report(::mkdir(argument(1), 0755));
  else if (verb == "try")
    report(try_call(argument(1)));
  else if (verb == "umask")
    report(words.size() > 2 ? set_umask_of(words[2], argument(1)) : set_umask(argument(1)));
  else if (verb == "umask-in-thread")
    thread_umask(argument(1));
  else if (verb == "umask-traced")
    trace_umask(argument(1));
  else if (verb == "catch-sigsys")
    catch_sigsys();
  else if (verb == "winsize")
    terminal_size();
  else if (verb == "background")
    background(argument(1));
  else if (verb == "keyring")
    std::printf("%ld\n", ::syscall(SYS_keyctl, 0, -3, 0));  // number of the session's, made nowhere
  else if (verb == "fork-away")
    fork_away(argument(1));
  else if (verb == "echo")
    std::printf("%s\n", argument(1));
  else if (verb == "error")
    std::fprintf(stderr, "%s\n", argument(1));
  else if (verb == "sleep")
    ::usleep(static_cast<useconds_t>(std::atof(argument(1)) * 1e6));
  else if (verb == "exit")
    std::exit(std::atoi(argument(1)));
  else if (verb == "kill")
    ::kill(::getpid(), std::atoi(argument(1)));
  else if (verb == "wait")
    wait_for_signal();
  else if (verb == "udp-echo")
    udp_echo(argument(1));
  else if (verb == "overwrite-program")
    overwrite_program(argument(1), std::atof(argument(2)));
  else if (verb == "spy")
    spy(argument(1), std::atof(argument(2)));
  else if (verb == "exchange")
    exchange(argument(1), argument(2));
  else if (verb == "exec") {
    std::vector<char*> argv;
    std::vector<std::string> rest(words.begin() + 1, words.end());
    for (std::string& word : rest) argv.push_back(word.data());
    argv.push_back(nullptr);
    std::fflush(stdout);
    ::execv(argv[0], argv.data());
    report(-1);
  } else {
    return false;
  }
  std::fflush(stdout);
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> words;
  for (int i = 1; i <= argc; ++i) {
    if (i < argc && std::strcmp(argv[i], ";") != 0) {
      words.emplace_back(argv[i]);
      continue;
    }
    if (!words.empty() && !run(words)) {
      std::fprintf(stderr, "probe: unknown verb %s\n", words[0].c_str());
      return 99;
    }
    words.clear();
  }
  return 0;
}
