#include "runtime/seccomp.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "runtime/bpf_ranges.h"

using namespace kelp;
using namespace kelp::runtime;

namespace {

const char* const kProfile = R"({"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,
 "architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],
 "syscalls":[
  {"names":["read","write","close","fstat","lseek","mmap","mprotect","munmap","brk","rt_sigaction","rt_sigprocmask",
    "ioctl","pread64","access","pipe","select","sched_yield","exit","exit_group","wait4","getpid","socket","no_such_call",
    "futex","openat","execve","clone","uname","getcwd","chdir","mkdir","rmdir"],"action":"SCMP_ACT_ALLOW"},
  {"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":0,"op":"SCMP_CMP_EQ"}]},
  {"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":131072,"op":"SCMP_CMP_EQ"}]},
  {"names":["unshare"],"action":"SCMP_ACT_ALLOW",
   "args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]},
  {"names":["kill"],"action":"SCMP_ACT_ERRNO","errnoRet":1,
   "args":[{"index":0,"value":5,"op":"SCMP_CMP_GT"},{"index":1,"value":9,"op":"SCMP_CMP_NE"}]},
  {"names":["setns","mount"],"action":"SCMP_ACT_ERRNO","errnoRet":1},
  {"names":["reboot"],"action":"SCMP_ACT_KILL_PROCESS"}]})";

std::uint32_t ask(const SeccompProgram& program, std::uint32_t nr, std::uint64_t a0 = 0, std::uint64_t a1 = 0,
                  std::uint32_t arch = AUDIT_ARCH_X86_64) {
  BpfInput input;
  input.nr = nr;
  input.arch = arch;
  input.args[0] = a0;
  input.args[1] = a1;
  return run_bpf(program.bpf, input);
}

}  // namespace

#ifdef __x86_64__
TEST_CASE("a compiled profile answers as written") {
  const SeccompProgram program = compile_seccomp(spec::parse_seccomp(kProfile));
  constexpr std::uint32_t kDefault = SECCOMP_RET_ERRNO | 38;
  constexpr std::uint32_t kEperm = SECCOMP_RET_ERRNO | 1;
  CHECK(ask(program, SYS_read) == SECCOMP_RET_ALLOW);
  CHECK(ask(program, SYS_ptrace) == kDefault);
  CHECK(ask(program, 5000) == kDefault);
  CHECK(ask(program, SYS_personality, 0) == SECCOMP_RET_ALLOW);
  CHECK(ask(program, SYS_personality, 131072) == SECCOMP_RET_ALLOW);
  CHECK(ask(program, SYS_personality, 1) == kDefault);
  CHECK(ask(program, SYS_unshare, 0x11) == SECCOMP_RET_ALLOW);
  CHECK(ask(program, SYS_unshare, 0x10000000) == kDefault);
  CHECK(ask(program, SYS_kill, 6, 10) == kEperm);
  CHECK(ask(program, SYS_kill, 6, 9) == kDefault);
  CHECK(ask(program, SYS_kill, 1ULL << 40, 10) == kEperm);  // all 64 bits count
  CHECK(ask(program, SYS_setns) == kEperm);
  CHECK(ask(program, SYS_reboot) == SECCOMP_RET_KILL_PROCESS);
  CHECK(ask(program, 3, 0, 0, AUDIT_ARCH_I386) == SECCOMP_RET_ALLOW);  // read
  CHECK(ask(program, 21, 0, 0, AUDIT_ARCH_I386) == kEperm);            // mount
  CHECK(ask(program, 0x40000000, 0, 0) == SECCOMP_RET_ALLOW);          // x32 read
  CHECK(ask(program, 0x40000000 + SYS_mount) == kEperm);               // x32 mount
  CHECK(ask(program, SYS_read, 0, 0, AUDIT_ARCH_AARCH64) == SECCOMP_RET_KILL_THREAD);
}

TEST_CASE("the filter is a binary search") {
  // A chain over these numbers would be far longer than the ranges they form.
  std::string names;
  for (const char* name :
       {"accept",    "bind", "connect", "dup",      "epoll_wait", "fork", "getuid", "kill",  "link",  "mknod",
        "nanosleep", "open", "pause",   "quotactl", "read",       "stat", "times",  "umask", "vfork", "write"})
    names += fmt::format("{}\"{}\"", names.empty() ? "" : ",", name);
  const SeccompProgram program = compile_seccomp(spec::parse_seccomp(fmt::format(
      R"({{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{{"names":[{}],"action":"SCMP_ACT_ALLOW"}}]}})",
      names)));
  size_t searches = 0;
  for (size_t i = 0; i < program.bpf.size() / sizeof(sock_filter); ++i) {
    sock_filter instruction;
    std::memcpy(&instruction, program.bpf.data() + i * sizeof instruction, sizeof instruction);
    if (instruction.code == (BPF_JMP | BPF_JGE | BPF_K)) ++searches;
  }
  CHECK(searches > 20);
}
#endif

TEST_CASE("rewriting leaves what it does not know alone") {
  const sock_filter strange[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 1, 0, 1),
                                 BPF_STMT(BPF_RET | BPF_K, 1), BPF_STMT(BPF_RET | BPF_K, 2)};
  const std::string bpf(reinterpret_cast<const char*>(strange), sizeof strange);
  CHECK(with_binary_search(bpf) == bpf);
  CHECK(with_binary_search("").empty());
}

TEST_CASE("errors of a profile name their place") {
  const auto compile = [](const char* text) { compile_seccomp(spec::parse_seccomp(text)); };
  CHECK_THROWS_WITH_AS(compile(R"({"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_VAX"]})"),
                       "linux.seccomp.architectures[0]: unknown architecture \"SCMP_ARCH_VAX\"", Error);
  CHECK_THROWS_WITH_AS(compile(R"({"defaultAction":"SCMP_ACT_ALLOW","flags":["X"]})"),
                       "linux.seccomp.flags[0]: unknown flag \"X\"", Error);
}

TEST_CASE("a notify rule asks for a listener") {
  const SeccompProgram program = compile_seccomp(spec::parse_seccomp(
      R"({"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/l","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]})"));
  CHECK(program.listener);
  CHECK((program.flags & SECCOMP_FILTER_FLAG_NEW_LISTENER) != 0);
  CHECK(program.listener_path == "/l");
}

TEST_CASE("flags reach the kernel's call") {
  const auto flags_of = [](const char* flag, const char* action) {
    return compile_seccomp(spec::parse_seccomp(
                               fmt::format(R"({{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"{}","flags":["{}"],)"
                                           R"("syscalls":[{{"names":["mkdir"],"action":"{}"}}]}})",
                                           std::string_view(action) == "SCMP_ACT_NOTIFY" ? "/l" : "", flag, action)))
        .flags;
  };
  const char* const error = "SCMP_ACT_ERRNO";
  const char* const notify = "SCMP_ACT_NOTIFY";
  constexpr unsigned kListener = SECCOMP_FILTER_FLAG_NEW_LISTENER;
  constexpr unsigned kKillable = 1U << 5U;  // SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
  CHECK(flags_of("SECCOMP_FILTER_FLAG_TSYNC", error) == SECCOMP_FILTER_FLAG_TSYNC);
  CHECK(flags_of("SECCOMP_FILTER_FLAG_LOG", error) == SECCOMP_FILTER_FLAG_LOG);
  CHECK(flags_of("SECCOMP_FILTER_FLAG_SPEC_ALLOW", error) == SECCOMP_FILTER_FLAG_SPEC_ALLOW);
  CHECK(flags_of("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", notify) == (kListener | kKillable));
  // What the kernel refuses together: the flag has no meaning there.
  CHECK(flags_of("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", error) == 0);
  CHECK(flags_of("SECCOMP_FILTER_FLAG_TSYNC", notify) == kListener);
}

TEST_CASE("an installed filter is in force") {
  const SeccompProgram program = compile_seccomp(spec::parse_seccomp(
      R"({"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":77}]})"));
  const pid_t child = ::fork();
  if (child == 0) {
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    try {
      install_seccomp(program);
    } catch (const Error&) {
      ::_exit(1);
    }
    errno = 0;
    ::mkdir("/nonexistent/x", 0755);
    ::_exit(errno == 77 ? 0 : 2);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
}

TEST_CASE("the cache gives the same filter, and rebuilds a damaged file") {
  char name[] = "/tmp/kelp-seccomp-XXXXXX";
  REQUIRE(::mkdtemp(name) != nullptr);
  const std::string dir = std::string(name) + "/a/b";
  const spec::Seccomp profile = spec::parse_seccomp(
      R"({"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]})");
  const SeccompProgram first = cached_seccomp(profile, dir);
  CHECK(cached_seccomp(profile, dir).bpf == first.bpf);
  std::string file;
  {
    FILE* list = ::popen(("ls " + dir + "/*.bpf").c_str(), "r");
    char line[512] = "";
    CHECK(::fgets(line, sizeof line, list) != nullptr);
    ::pclose(list);
    file = std::string(line, std::string_view(line).find('\n'));
  }
  struct stat info {};
  REQUIRE(::stat(file.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
  for (const off_t place : {off_t{2}, off_t{10}, info.st_size - 2}) {
    const int fd = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
    REQUIRE(fd >= 0);
    char byte = 0;
    CHECK(::pread(fd, &byte, 1, place) == 1);
    byte = static_cast<char>(byte ^ 1);
    CHECK(::pwrite(fd, &byte, 1, place) == 1);
    ::close(fd);
    CHECK(cached_seccomp(profile, dir).bpf == first.bpf);
  }
  CHECK(::truncate(file.c_str(), 30) == 0);
  CHECK(cached_seccomp(profile, dir).bpf == first.bpf);
  CHECK(cached_seccomp(profile, "/proc/none").bpf == first.bpf);  // unusable: compiled
  CHECK(::system(("rm -r " + std::string(name)).c_str()) == 0);
}
