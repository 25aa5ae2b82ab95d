#include "spec/seccomp_profile.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "base/error.h"
#include "sys/capability.h"
#include "sys/procfs.h"

using namespace kelp;
using namespace kelp::spec;

namespace {

constexpr std::uint64_t kNone = 0;
constexpr std::uint64_t kAll = ~0ULL;

std::set<std::string> allowed(const Seccomp& profile, bool conditional) {
  std::set<std::string> names;
  for (const SeccompRule& rule : profile.syscalls)
    if (rule.action == SeccompAction::allow && rule.args.empty() != conditional)
      names.insert(rule.names.begin(), rule.names.end());
  return names;
}

/// Names answered by an errno of their own.
std::map<std::string, unsigned> refused(const Seccomp& profile) {
  std::map<std::string, unsigned> names;
  for (const SeccompRule& rule : profile.syscalls)
    if (rule.action == SeccompAction::error)
      for (const std::string& name : rule.names) names[name] = rule.errno_ret.value_or(1);
  return names;
}

}  // namespace

TEST_CASE("the default profile denies what it does not list") {
  const Seccomp profile = default_seccomp_profile({kNone, "amd64"});
  CHECK(profile.default_action == SeccompAction::error);
  CHECK(profile.default_errno_ret == 38);
  CHECK(profile.architectures == Strings{"SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"});
  const auto names = allowed(profile, false);
  CHECK(names.count("read") == 1);
  CHECK(names.count("arch_prctl") == 1);
  CHECK(names.count("bpf") == 0);
  CHECK(names.count("kexec_load") == 0);
  CHECK(names.count("add_key") == 0);
  CHECK(refused(profile).at("bpf") == 1);
  CHECK(refused(profile).at("socket") == 22);
  const auto with_admin = allowed(default_seccomp_profile({1ULL << 21, "arm64"}), false);
  CHECK(with_admin.count("bpf") == 1);
  CHECK(with_admin.count("arch_prctl") == 0);
  CHECK(with_admin.count("sync_file_range2") == 1);
}

TEST_CASE("no call is both allowed and refused without a condition") {
  for (const std::uint64_t caps : {kNone, kAll}) {
    const Seccomp profile = default_seccomp_profile({caps, "amd64"});
    const auto names = allowed(profile, false);
    for (const SeccompRule& rule : profile.syscalls)
      if (rule.action == SeccompAction::error && rule.args.empty())
        for (const std::string& name : rule.names) CHECK_MESSAGE(names.count(name) == 0, name);
  }
}

TEST_CASE("its effect is that of the profile that podman ships, but for calls newer than that") {
  const auto text = sys::try_read_file("/usr/share/containers/seccomp.json");
  if (!text) return;  // golang-github-containers-common is not installed
  const std::set<std::string> newer = {"cachestat",        "fchmodat2",
                                       "futex_requeue",    "futex_wait",
                                       "futex_waitv",      "futex_wake",
                                       "getxattrat",       "listmount",
                                       "listxattrat",      "lsm_get_self_attr",
                                       "lsm_list_modules", "lsm_set_self_attr",
                                       "map_shadow_stack", "mseal",
                                       "quotactl_fd",      "removexattrat",
                                       "riscv_hwprobe",    "set_mempolicy_home_node",
                                       "setxattrat",       "statmount",
                                       "uretprobe"};
  for (const std::uint64_t caps : {kNone, kAll, std::uint64_t{0x800405fb}})
    for (const char* arch : {"amd64", "arm64"}) {
      const ProfileTarget target{caps, arch};
      const Seccomp ours = default_seccomp_profile(target);
      const Seccomp theirs = load_docker_profile(*text, target);
      auto our_names = allowed(ours, false);
      for (const std::string& name : newer) our_names.erase(name);
      CHECK(our_names == allowed(theirs, false));
      CHECK(allowed(ours, true) == allowed(theirs, true));
      CHECK(ours.architectures == theirs.architectures);
      auto our_refused = refused(ours);
      our_refused.erase("quotactl_fd");
      auto their_refused = refused(theirs);
      their_refused.erase("setns");  // there it is also allowed without a condition
      CHECK(our_refused == their_refused);
    }
}

TEST_CASE("conditions of a profile") {
  const char* text = R"({"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[
    {"name":"a","action":"SCMP_ACT_ALLOW"},
    {"names":["b"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"3.0"}},
    {"names":["c"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"99.0"}},
    {"names":["d"],"action":"SCMP_ACT_ALLOW","excludes":{"arches":["amd64"]}},
    {"names":["e"],"action":"SCMP_ACT_ALLOW","errnoRet":1,"includes":{"caps":["CAP_CHOWN","CAP_KILL"]}}]})";
  CHECK(allowed(load_docker_profile(text, {kAll, "amd64"}), false) == std::set<std::string>{"a", "b", "e"});
  CHECK(allowed(load_docker_profile(text, {1, "arm64"}), false) == std::set<std::string>{"a", "b", "d"});
  CHECK_THROWS_WITH_AS(load_docker_profile(R"({"defaultAction":"X"})", {}), "defaultAction: unknown action \"X\"",
                       Error);
  CHECK_THROWS_WITH_AS(
      load_docker_profile(R"({"defaultAction":"SCMP_ACT_LOG","syscalls":[{"action":"SCMP_ACT_LOG"}]})", {}),
      "syscalls[0]: names no system call", Error);
}

TEST_CASE("the hardened profile allows less than the default one, and nothing else") {
  const ProfileTarget target{0, std::string(native_arch())};
  const auto usual = allowed(default_seccomp_profile(target), false);
  const auto hardened = allowed(hardened_seccomp_profile(target), false);
  CHECK(std::includes(usual.begin(), usual.end(), hardened.begin(), hardened.end()));
  CHECK(usual.contains("ptrace"));
  for (const char* name : {"ptrace", "io_uring_setup", "process_vm_readv", "vmsplice"}) CHECK(!hardened.contains(name));
  for (const char* name : {"execve", "mknodat", "futex", "shmget"}) CHECK(hardened.contains(name));
  CHECK(hardened_seccomp_profile(target).default_action == SeccompAction::error);
}
