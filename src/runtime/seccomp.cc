// Profile → BPF by libseccomp, and the loading of it. The cache of finished filters is in seccomp_cache.cc.
#include "runtime/seccomp.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "runtime/bpf_ranges.h"

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

namespace kelp::runtime {
namespace {

using spec::SeccompAction;
using spec::SeccompOp;

constexpr std::array<std::string_view, 20> kArchs = {
    "x86",         "x86_64", "x32",   "arm",     "aarch64", "mips",  "mips64",  "mips64n32", "mipsel",   "mipsel64",
    "mipsel64n32", "ppc",    "ppc64", "ppc64le", "s390",    "s390x", "riscv64", "parisc",    "parisc64", "loongarch64"};

struct Flag {
  const char* name;
  unsigned long value;
};
constexpr std::array<Flag, 4> kFlags = {
    {{"SECCOMP_FILTER_FLAG_TSYNC", SECCOMP_FILTER_FLAG_TSYNC},
     {"SECCOMP_FILTER_FLAG_LOG", SECCOMP_FILTER_FLAG_LOG},
     {"SECCOMP_FILTER_FLAG_SPEC_ALLOW", SECCOMP_FILTER_FLAG_SPEC_ALLOW},
     {"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV}}};

struct ReleaseFilter {
  void operator()(void* filter) const { ::seccomp_release(filter); }
};
using Filter = std::unique_ptr<void, ReleaseFilter>;

/// libseccomp's functions return -errno.
void check(int result, std::string_view what) {
  if (result < 0) throw SysError(what, -result);
}

std::uint32_t action_of(SeccompAction action, std::optional<unsigned> errno_ret) {
  const unsigned value = errno_ret.value_or(EPERM) & 0xffff;
  switch (action) {
    case SeccompAction::kill:
    case SeccompAction::kill_thread:
      return SCMP_ACT_KILL_THREAD;
    case SeccompAction::kill_process:
      return SCMP_ACT_KILL_PROCESS;
    case SeccompAction::trap:
      return SCMP_ACT_TRAP;
    case SeccompAction::error:
      return SCMP_ACT_ERRNO(value);
    case SeccompAction::trace:
      return SCMP_ACT_TRACE(value);
    case SeccompAction::allow:
      return SCMP_ACT_ALLOW;
    case SeccompAction::log:
      return SCMP_ACT_LOG;
    case SeccompAction::notify:
      return SCMP_ACT_NOTIFY;
  }
  return SCMP_ACT_KILL_PROCESS;
}

scmp_compare op_of(SeccompOp op) {
  switch (op) {
    case SeccompOp::ne:
      return SCMP_CMP_NE;
    case SeccompOp::lt:
      return SCMP_CMP_LT;
    case SeccompOp::le:
      return SCMP_CMP_LE;
    case SeccompOp::eq:
      return SCMP_CMP_EQ;
    case SeccompOp::ge:
      return SCMP_CMP_GE;
    case SeccompOp::gt:
      return SCMP_CMP_GT;
    case SeccompOp::masked_eq:
      return SCMP_CMP_MASKED_EQ;
  }
  return SCMP_CMP_EQ;
}

scmp_arg_cmp comparison_of(const spec::SeccompArg& arg) {
  scmp_arg_cmp compare{};
  compare.arg = arg.index;
  compare.op = op_of(arg.op);
  // MASKED_EQ: value is the mask, valueTwo what must be left, in the specification and in libseccomp alike.
  compare.datum_a = arg.value;
  compare.datum_b = arg.value_two;
  return compare;
}

void add_architectures(scmp_filter_ctx filter, const spec::Strings& architectures) {
  for (size_t i = 0; i < architectures.size(); ++i) {
    const std::string_view name = architectures[i];
    const std::string_view prefix = "SCMP_ARCH_";
    std::uint32_t token = 0;
    if (name == "SCMP_ARCH_NATIVE")
      token = ::seccomp_arch_native();
    else if (starts_with(name, prefix))
      token = ::seccomp_arch_resolve_name(to_lower(name.substr(prefix.size())).c_str());
    if (token == 0) throw_error("linux.seccomp.architectures[{}]: unknown architecture {}", i, quoted(name));
    const int result = ::seccomp_arch_add(filter, token);
    if (result != -EEXIST) check(result, fmt::format("linux.seccomp.architectures[{}]: add {}", i, name));
  }
}

void add_rule(scmp_filter_ctx filter, const spec::SeccompRule& rule, std::uint32_t action, size_t index) {
  std::vector<scmp_arg_cmp> compares;
  unsigned seen = 0;
  bool repeated = false;
  for (const spec::SeccompArg& arg : rule.args) {
    repeated = repeated || (seen >> arg.index & 1) != 0;
    seen |= 1U << arg.index;
    compares.push_back(comparison_of(arg));
  }
  for (const std::string& name : rule.names) {
    const int number = ::seccomp_syscall_resolve_name(name.c_str());
    if (number == __NR_SCMP_ERROR) {
      log::debug("seccomp: system call {} is not known to libseccomp and skipped", printable(name));
      continue;
    }
    const auto add = [&](const scmp_arg_cmp* first, size_t count) {
      const int result = ::seccomp_rule_add_array(filter, action, number, static_cast<unsigned>(count), first);
      // -EACCES: the rule says what the default says. -EDOM: not on one of the architectures. -EEXIST: twice.
      if (result == -EACCES || result == -EDOM || result == -EEXIST) return;
      check(result, fmt::format("linux.seccomp.syscalls[{}]: rule for {}", index, printable(name)));
    };
    if (!repeated) {
      add(compares.data(), compares.size());
    } else {
      // libseccomp takes one comparison per argument: several on one argument mean "any of them", as in runc.
      for (const scmp_arg_cmp& compare : compares) add(&compare, 1);
    }
  }
}

std::string export_bpf(scmp_filter_ctx filter) {
  const Fd memory(::memfd_create("kelp-seccomp", MFD_CLOEXEC));
  if (!memory) throw_errno("memory file for the seccomp filter");
  check(::seccomp_export_bpf(filter, memory.get()), "export the seccomp filter");
  const off_t size = ::lseek(memory.get(), 0, SEEK_END);
  std::string bpf(static_cast<size_t>(size), '\0');
  if (::pread(memory.get(), bpf.data(), bpf.size(), 0) != size) throw_errno("read the exported seccomp filter");
  return bpf;
}

unsigned kernel_flags(const spec::Seccomp& profile) {
  unsigned flags = 0;
  for (size_t i = 0; i < profile.flags.size(); ++i) {
    bool known = false;
    for (const Flag& flag : kFlags)
      if (profile.flags[i] == flag.name) {
        known = true;
        flags |= static_cast<unsigned>(flag.value);
      }
    if (!known) throw_error("linux.seccomp.flags[{}]: unknown flag {}", i, quoted(profile.flags[i]));
  }
  return flags;
}

long seccomp_call(unsigned operation, unsigned flags, void* argument) {
  return ::syscall(SYS_seccomp, operation, flags, argument);
}

}  // namespace

SeccompProgram describe_seccomp(const spec::Seccomp& profile) {
  SeccompProgram program;
  program.flags = kernel_flags(profile);
  for (const spec::SeccompRule& rule : profile.syscalls)
    if (rule.action == SeccompAction::notify) program.listener = true;
  if (program.listener) {
    program.flags |= SECCOMP_FILTER_FLAG_NEW_LISTENER;
    program.flags &=
        ~static_cast<unsigned>(SECCOMP_FILTER_FLAG_TSYNC);  // the two exclude each other; we have no thread
  } else {
    program.flags &= ~static_cast<unsigned>(SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
  }
  program.listener_path = profile.listener_path;
  program.listener_metadata = profile.listener_metadata;
  return program;
}

SeccompProgram compile_seccomp(const spec::Seccomp& profile) {
  SeccompProgram program = describe_seccomp(profile);
  const std::uint32_t fallback = action_of(profile.default_action, profile.default_errno_ret);
  const Filter filter(::seccomp_init(fallback));
  if (!filter)
    throw_error("linux.seccomp.defaultAction: libseccomp refuses {}",
                spec::seccomp_action_name(profile.default_action));
  add_architectures(filter.get(), profile.architectures);
  // no_new_privs is the configuration's choice, never the filter's.
  check(::seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_NNP, 0), "prepare the seccomp filter");
  for (size_t i = 0; i < profile.syscalls.size(); ++i) {
    const spec::SeccompRule& rule = profile.syscalls[i];
    const std::uint32_t action = action_of(rule.action, rule.errno_ret);
    if (action != fallback) add_rule(filter.get(), rule, action, i);
  }
  program.bpf = with_binary_search(export_bpf(filter.get()));
  return program;
}

Fd install_seccomp(const SeccompProgram& program) {
  if (program.empty()) return Fd();
  const size_t count = program.bpf.size() / sizeof(sock_filter);
  if (count == 0 || count > BPF_MAXINSNS || program.bpf.size() % sizeof(sock_filter) != 0)
    throw_error("the seccomp filter has {} bytes, the kernel takes {} instructions", program.bpf.size(), BPF_MAXINSNS);
  std::vector<sock_filter> instructions(count);
  program.bpf.copy(reinterpret_cast<char*>(instructions.data()), program.bpf.size());
  sock_fprog filter{static_cast<unsigned short>(count), instructions.data()};
  const long result = seccomp_call(SECCOMP_SET_MODE_FILTER, program.flags, &filter);
  if (result < 0) {
    const int saved = errno;
    SysError error("load the seccomp filter", saved);
    if (saved == EACCES) error.with_hint("without no_new_privs it needs CAP_SYS_ADMIN in the user namespace");
    throw error;
  }
  return program.listener ? Fd(static_cast<int>(result)) : Fd();
}

void send_seccomp_listener(const std::string& listener_path, int notify_fd, const std::string& state_json) {
  const Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) throw_errno("socket for the seccomp listener");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (listener_path.size() >= sizeof address.sun_path)
    throw_error("seccomp listener {}: the path is longer than {} bytes", printable(listener_path),
                sizeof address.sun_path - 1);
  listener_path.copy(address.sun_path, listener_path.size());
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
    throw_errno("connect to the seccomp listener {}", printable(listener_path));
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  iovec data{const_cast<char*>(state_json.data()), state_json.size()};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  *reinterpret_cast<int*>(CMSG_DATA(header)) = notify_fd;
  size_t sent = 0;
  while (sent < state_json.size()) {
    data = {const_cast<char*>(state_json.data()) + sent, state_json.size() - sent};
    const ssize_t n = ::sendmsg(socket.get(), &message, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_errno("send the seccomp descriptor to {}", printable(listener_path));
    sent += static_cast<size_t>(n);
    message.msg_control = nullptr;  // the descriptor went with the first bytes
    message.msg_controllen = 0;
  }
}

std::vector<std::string> seccomp_known_flags() {
  std::vector<std::string> names;
  for (const Flag& flag : kFlags) names.emplace_back(flag.name);
  return names;
}

std::vector<std::string> seccomp_supported_flags() {
  std::vector<std::string> names;
  for (const Flag& flag : kFlags) {
    // A null filter: EFAULT when the kernel knows the flags, EINVAL when it does not.
    unsigned long tried = flag.value;
    if (tried == SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) tried |= SECCOMP_FILTER_FLAG_NEW_LISTENER;
    if (seccomp_call(SECCOMP_SET_MODE_FILTER, static_cast<unsigned>(tried), nullptr) < 0 && errno == EFAULT)
      names.emplace_back(flag.name);
  }
  return names;
}

std::vector<std::string> seccomp_known_archs() {
  std::vector<std::string> names;
  for (const std::string_view arch : kArchs)
    if (::seccomp_arch_resolve_name(std::string(arch).c_str()) != 0) {
      std::string name = "SCMP_ARCH_";
      for (const char c : arch) name += static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
      names.push_back(std::move(name));
    }
  return names;
}

std::string seccomp_library_version() {
  const scmp_version* version = ::seccomp_version();
  return fmt::format("{}.{}.{}", version->major, version->minor, version->micro);
}

}  // namespace kelp::runtime
