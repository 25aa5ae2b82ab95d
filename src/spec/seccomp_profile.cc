// Profiles in Docker's form: the OCI form plus conditions (capabilities, architectures, kernel) on each rule, and a map
// from an architecture to those whose programs it also runs.
#include "spec/seccomp_profile.h"

#include <sys/utsname.h>

#include <algorithm>
#include <cstdio>

#include "base/error.h"
#include "base/text.h"
#include "spec/json_doc.h"
#include "sys/capability.h"

namespace kelp::spec {
namespace {

constexpr std::string_view kDefaultProfile =
#include "seccomp_default_profile.inc"
    ;

struct ArchName {
  std::string_view go, scmp;
};
constexpr ArchName kArchNames[] = {{"amd64", "SCMP_ARCH_X86_64"},    {"arm64", "SCMP_ARCH_AARCH64"},
                                   {"arm", "SCMP_ARCH_ARM"},         {"386", "SCMP_ARCH_X86"},
                                   {"x86", "SCMP_ARCH_X86"},         {"x32", "SCMP_ARCH_X32"},
                                   {"ppc64le", "SCMP_ARCH_PPC64LE"}, {"ppc64", "SCMP_ARCH_PPC64"},
                                   {"s390x", "SCMP_ARCH_S390X"},     {"s390", "SCMP_ARCH_S390"},
                                   {"riscv64", "SCMP_ARCH_RISCV64"}, {"mips64le", "SCMP_ARCH_MIPSEL64"},
                                   {"mipsle", "SCMP_ARCH_MIPSEL"},   {"mips64", "SCMP_ARCH_MIPS64"},
                                   {"mips", "SCMP_ARCH_MIPS"},       {"loong64", "SCMP_ARCH_LOONGARCH64"}};

std::string_view scmp_name(std::string_view go) {
  for (const ArchName& name : kArchNames)
    if (name.go == go) return name.scmp;
  return "";
}

/// true when the running kernel is at least "major.minor".
bool kernel_is_at_least(JsonValue wanted) {
  int major = 0;
  int minor = 0;
  if (std::sscanf(wanted.str().c_str(), "%d.%d", &major, &minor) != 2)
    wanted.fail(fmt::format("{} is not MAJOR.MINOR", quoted(wanted.str())));
  utsname name{};
  int have_major = 0;
  int have_minor = 0;
  if (::uname(&name) < 0 || std::sscanf(name.release, "%d.%d", &have_major, &have_minor) != 2) return true;
  return have_major > major || (have_major == major && have_minor >= minor);
}

bool names_arch(JsonValue arches, const std::string& arch) {
  for (JsonValue item = arches.first_element(); item.here(); item = item.next())
    if (item.str() == arch || (arch == "386" && item.str() == "x86")) return true;
  return false;
}

bool has_cap(JsonValue name, std::uint64_t caps) {
  const auto bit = sys::capability_from_name(name.str());
  return bit && (caps >> *bit & 1) != 0;
}

/// Whether a rule is meant for the target: all of `includes`, none of `excludes`.
bool applies(JsonValue rule, const ProfileTarget& target) {
  if (const JsonValue includes = rule["includes"]) {
    if (const JsonValue arches = includes["arches"]; arches.size() > 0 && !names_arch(arches, target.arch))
      return false;
    const JsonValue caps = includes["caps"];
    for (JsonValue cap = caps.first_element(); cap.here(); cap = cap.next())
      if (!has_cap(cap, target.caps)) return false;
    if (const JsonValue kernel = includes["minKernel"]; kernel && !kernel_is_at_least(kernel)) return false;
  }
  if (const JsonValue excludes = rule["excludes"]) {
    if (names_arch(excludes["arches"], target.arch)) return false;
    const JsonValue caps = excludes["caps"];
    for (JsonValue cap = caps.first_element(); cap.here(); cap = cap.next())
      if (has_cap(cap, target.caps)) return false;
    if (const JsonValue kernel = excludes["minKernel"]; kernel && kernel_is_at_least(kernel)) return false;
  }
  return true;
}

SeccompAction action_of(JsonValue value) {
  const auto action = seccomp_action_from_name(value.str());
  if (!action) value.fail(fmt::format("unknown action {}", quoted(value.str())));
  return *action;
}

SeccompArg arg_of(JsonValue value) {
  SeccompArg arg;
  arg.index = value.require("index").integer<unsigned>(0, 5);
  arg.value = value.require("value").integer<std::uint64_t>();
  if (const JsonValue second = value["valueTwo"]) arg.value_two = second.integer<std::uint64_t>();
  const JsonValue op = value.require("op");
  const auto known = seccomp_op_from_name(op.str());
  if (!known) op.fail(fmt::format("unknown operator {}", quoted(op.str())));
  arg.op = *known;
  return arg;
}

SeccompRule rule_of(JsonValue value) {
  SeccompRule rule;
  if (const JsonValue names = value["names"]) rule.names = names.strings();
  if (const JsonValue name = value["name"]; name && !name.str().empty()) rule.names.push_back(name.str());
  if (rule.names.empty()) value.fail("names no system call");
  rule.action = action_of(value.require("action"));
  // Docker writes errnoRet: 1 next to other actions too; there it has no meaning.
  if (const JsonValue number = value["errnoRet"];
      number && (rule.action == SeccompAction::error || rule.action == SeccompAction::trace))
    rule.errno_ret = number.integer<unsigned>();
  const JsonValue args = value["args"];
  for (JsonValue arg = args.first_element(); arg.here(); arg = arg.next()) rule.args.push_back(arg_of(arg));
  return rule;
}

void read_architectures(JsonValue top, const ProfileTarget& target, Seccomp& out) {
  out.architectures = top["architectures"].strings();
  const JsonValue map = top["archMap"];
  if (!map) return;
  if (!out.architectures.empty()) map.fail("stands beside architectures: only one of them may be there");
  const std::string_view own = scmp_name(target.arch);
  for (JsonValue entry = map.first_element(); entry.here(); entry = entry.next()) {
    if (entry.require("architecture").str() != own) continue;
    out.architectures.emplace_back(own);
    for (std::string& sub : entry["subArchitectures"].strings()) out.architectures.push_back(std::move(sub));
    return;
  }
  if (!own.empty()) out.architectures.emplace_back(own);
}

}  // namespace

std::string_view native_arch() noexcept {
#if defined(__x86_64__) && defined(__ILP32__)
  return "x32";
#elif defined(__x86_64__)
  return "amd64";
#elif defined(__aarch64__)
  return "arm64";
#elif defined(__arm__)
  return "arm";
#elif defined(__i386__)
  return "386";
#elif defined(__powerpc64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  return "ppc64le";
#elif defined(__s390x__)
  return "s390x";
#elif defined(__riscv) && __riscv_xlen == 64
  return "riscv64";
#elif defined(__loongarch64)
  return "loong64";
#elif defined(__mips64) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  return "mips64le";
#else
  return "unknown";
#endif
}

Seccomp load_docker_profile(std::string_view text, const ProfileTarget& target) {
  const JsonDoc doc = JsonDoc::parse(text, kMaxConfigBytes);
  const JsonValue top = doc.root();
  Seccomp out;
  out.default_action = action_of(top.require("defaultAction"));
  if (const JsonValue number = top["defaultErrnoRet"];
      number && (out.default_action == SeccompAction::error || out.default_action == SeccompAction::trace))
    out.default_errno_ret = number.integer<unsigned>();
  read_architectures(top, target, out);
  out.flags = top["flags"].strings();
  if (const JsonValue path = top["listenerPath"]) out.listener_path = path.str();
  if (const JsonValue metadata = top["listenerMetadata"]) out.listener_metadata = metadata.str();
  const JsonValue rules = top["syscalls"];
  out.syscalls.reserve(rules.size());
  for (JsonValue rule = rules.first_element(); rule.here(); rule = rule.next())
    if (applies(rule, target)) out.syscalls.push_back(rule_of(rule));
  return out;
}

Seccomp default_seccomp_profile(const ProfileTarget& target) { return load_docker_profile(kDefaultProfile, target); }

Seccomp hardened_seccomp_profile(const ProfileTarget& target) {
  static constexpr std::string_view kRefused[] = {"add_key",
                                                  "bpf",
                                                  "clock_adjtime",
                                                  "clock_adjtime64",
                                                  "fanotify_init",
                                                  "fanotify_mark",
                                                  "io_uring_enter",
                                                  "io_uring_register",
                                                  "io_uring_setup",
                                                  "kcmp",
                                                  "keyctl",
                                                  "lookup_dcookie",
                                                  "mbind",
                                                  "memfd_secret",
                                                  "migrate_pages",
                                                  "modify_ldt",
                                                  "move_pages",
                                                  "name_to_handle_at",
                                                  "open_by_handle_at",
                                                  "perf_event_open",
                                                  "personality",
                                                  "pidfd_getfd",
                                                  "process_madvise",
                                                  "process_mrelease",
                                                  "process_vm_readv",
                                                  "process_vm_writev",
                                                  "ptrace",
                                                  "remap_file_pages",
                                                  "request_key",
                                                  "set_mempolicy",
                                                  "set_mempolicy_home_node",
                                                  "sysfs",
                                                  "syslog",
                                                  "uselib",
                                                  "userfaultfd",
                                                  "ustat",
                                                  "vmsplice"};
  Seccomp profile = default_seccomp_profile(target);
  for (SeccompRule& rule : profile.syscalls)
    if (rule.action == SeccompAction::allow)
      std::erase_if(rule.names, [](const std::string& name) {
        return std::find(std::begin(kRefused), std::end(kRefused), name) != std::end(kRefused);
      });
  std::erase_if(profile.syscalls, [](const SeccompRule& rule) { return rule.names.empty(); });
  return profile;
}

std::string_view default_seccomp_profile_text() noexcept { return kDefaultProfile; }

}  // namespace kelp::spec
