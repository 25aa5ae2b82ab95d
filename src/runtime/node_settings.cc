#include "runtime/node_settings.h"

#include <fcntl.h>
#include <linux/ioprio.h>
#include <linux/magic.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "spec/validate.h"
#include "sys/procfs.h"

namespace kelp::runtime {
namespace {

struct Word {
  std::string_view name;
  int value;
};

constexpr std::array<Word, 16> kRlimits = {{{"RLIMIT_AS", RLIMIT_AS},
                                            {"RLIMIT_CORE", RLIMIT_CORE},
                                            {"RLIMIT_CPU", RLIMIT_CPU},
                                            {"RLIMIT_DATA", RLIMIT_DATA},
                                            {"RLIMIT_FSIZE", RLIMIT_FSIZE},
                                            {"RLIMIT_LOCKS", RLIMIT_LOCKS},
                                            {"RLIMIT_MEMLOCK", RLIMIT_MEMLOCK},
                                            {"RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE},
                                            {"RLIMIT_NICE", RLIMIT_NICE},
                                            {"RLIMIT_NOFILE", RLIMIT_NOFILE},
                                            {"RLIMIT_NPROC", RLIMIT_NPROC},
                                            {"RLIMIT_RSS", RLIMIT_RSS},
                                            {"RLIMIT_RTPRIO", RLIMIT_RTPRIO},
                                            {"RLIMIT_RTTIME", RLIMIT_RTTIME},
                                            {"RLIMIT_SIGPENDING", RLIMIT_SIGPENDING},
                                            {"RLIMIT_STACK", RLIMIT_STACK}}};
constexpr std::array<Word, 7> kPolicies = {{{"SCHED_OTHER", 0},
                                            {"SCHED_FIFO", 1},
                                            {"SCHED_RR", 2},
                                            {"SCHED_BATCH", 3},
                                            {"SCHED_ISO", 4},
                                            {"SCHED_IDLE", 5},
                                            {"SCHED_DEADLINE", 6}}};
/// source: linux/sched.h
constexpr std::array<Word, 7> kSchedFlags = {{{"SCHED_FLAG_RESET_ON_FORK", 0x01},
                                              {"SCHED_FLAG_RECLAIM", 0x02},
                                              {"SCHED_FLAG_DL_OVERRUN", 0x04},
                                              {"SCHED_FLAG_KEEP_POLICY", 0x08},
                                              {"SCHED_FLAG_KEEP_PARAMS", 0x10},
                                              {"SCHED_FLAG_UTIL_CLAMP_MIN", 0x20},
                                              {"SCHED_FLAG_UTIL_CLAMP_MAX", 0x40}}};
constexpr std::array<Word, 3> kIoClasses = {{{"IOPRIO_CLASS_RT", IOPRIO_CLASS_RT},
                                             {"IOPRIO_CLASS_BE", IOPRIO_CLASS_BE},
                                             {"IOPRIO_CLASS_IDLE", IOPRIO_CLASS_IDLE}}};

/// source: linux/mempolicy.h
constexpr std::array<Word, 7> kMemoryModes = {{{"MPOL_DEFAULT", 0},
                                               {"MPOL_PREFERRED", 1},
                                               {"MPOL_BIND", 2},
                                               {"MPOL_INTERLEAVE", 3},
                                               {"MPOL_LOCAL", 4},
                                               {"MPOL_PREFERRED_MANY", 5},
                                               {"MPOL_WEIGHTED_INTERLEAVE", 6}}};
constexpr std::array<Word, 3> kMemoryFlags = {
    {{"MPOL_F_NUMA_BALANCING", 1 << 13}, {"MPOL_F_RELATIVE_NODES", 1 << 14}, {"MPOL_F_STATIC_NODES", 1 << 15}}};

/// A set of small numbers as the kernel's calls take it.
class BitMask {
 public:
  explicit BitMask(const std::vector<unsigned>& numbers) {
    for (const unsigned number : numbers) {
      if (words_.size() <= number / kBits) words_.resize(number / kBits + 1);
      words_[number / kBits] |= 1UL << number % kBits;
    }
  }
  [[nodiscard]] const unsigned long* data() const noexcept { return words_.data(); }
  [[nodiscard]] size_t bytes() const noexcept { return words_.size() * sizeof(unsigned long); }

 private:
  static constexpr unsigned kBits = sizeof(unsigned long) * CHAR_BIT;
  std::vector<unsigned long> words_;
};

template <size_t N>
int value_of(std::string_view name, const std::array<Word, N>& words, const char* what) {
  for (const Word& word : words)
    if (word.name == name) return word.value;
  throw_error("unknown {} {}", what, quoted(name));
}

/// source: sched_setattr(2); glibc 2.36 has no wrapper
struct SchedAttributes {
  std::uint32_t size = sizeof(SchedAttributes);
  std::uint32_t policy = 0;
  std::uint64_t flags = 0;
  std::int32_t nice = 0;
  std::uint32_t priority = 0;
  std::uint64_t runtime = 0, deadline = 0, period = 0;
};

std::string limit_text(rlim_t limit) { return limit == RLIM_INFINITY ? "unlimited" : std::to_string(limit); }

/// net.ipv4.ip_forward → net/ipv4/ip_forward; a name that uses '/' may have dots in its parts (eth0.100).
std::string sysctl_path(std::string key) {
  const size_t first = key.find_first_of("./");
  if (first != std::string::npos && key[first] == '.') std::replace(key.begin(), key.end(), '.', '/');
  return key;
}

/// What is written there must reach the kernel, and nothing else: a mount of the configuration may cover a part of
/// /proc.
void check_procfs(int fd, const std::string& path) {
  struct statfs fs {};
  if (::fstatfs(fd, &fs) < 0) throw_errno("look at {}", path);
  if (fs.f_type != PROC_SUPER_MAGIC) throw_error("{} is covered by something that is no procfs", path);
}

}  // namespace

void set_host_names(const std::string& hostname, const std::string& domainname) {
  if (!hostname.empty() && ::sethostname(hostname.data(), hostname.size()) < 0)
    throw_errno("set the host name {}", quoted(hostname));
  if (!domainname.empty() && ::setdomainname(domainname.data(), domainname.size()) < 0)
    throw_errno("set the domain name {}", quoted(domainname));
}

void set_sysctls_at(int proc_sys_fd, const spec::StringMap& sysctl) {
  for (const auto& [key, value] : sysctl) {
    const std::string path = sysctl_path(key);
    const Fd file(::openat(proc_sys_fd, path.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (!file) throw_errno("sysctl {}: open /proc/sys/{}", key, path);
    check_procfs(file.get(), "/proc/sys/" + path);
    if (::write(file.get(), value.data(), value.size()) < 0) throw_errno("sysctl {}: write {}", key, quoted(value));
  }
}

void set_sysctls(const spec::StringMap& sysctl) {
  if (sysctl.empty()) return;
  const Fd proc_sys(::open("/proc/sys", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!proc_sys) throw_errno("sysctl {}: open /proc/sys", sysctl.begin()->first);
  set_sysctls_at(proc_sys.get(), sysctl);
}

void set_rlimits(const std::vector<spec::Rlimit>& rlimits) {
  for (const spec::Rlimit& limit : rlimits) {
    const auto resource = static_cast<__rlimit_resource>(value_of(limit.type, kRlimits, "resource limit"));
    const rlimit wanted{limit.soft, limit.hard};
    if (::setrlimit(resource, &wanted) == 0) continue;
    const int saved = errno;
    rlimit now{};
    ::getrlimit(resource, &now);
    SysError error(fmt::format("set {} to {} (hard {})", limit.type, limit_text(limit.soft), limit_text(limit.hard)),
                   saved);
    if (saved == EPERM)
      error.with_hint(
          fmt::format("the hard limit in force is {}; only the host's root may raise it", limit_text(now.rlim_max)));
    throw error;
  }
}

void set_oom_score_adj(int value, bool best_effort) {
  const char* const path = "/proc/self/oom_score_adj";
  const std::string now(trim(sys::read_file(path, 64)));
  if (now == std::to_string(value)) return;
  try {
    sys::write_file(path, std::to_string(value));
  } catch (const SysError& error) {
    if (error.code() != EACCES && error.code() != EPERM) throw;
    if (best_effort) {
      log::debug("oom_score_adj stays at {}: {}", now, error.message());
      return;
    }
    SysError refused(fmt::format("set oom_score_adj to {}", value), error.code());
    refused.with_hint(fmt::format("an unprivileged user may only raise it; it is {} now", now));
    throw refused;
  }
}

void set_scheduler(const spec::Scheduler& scheduler) {
  SchedAttributes attributes;
  attributes.policy = static_cast<std::uint32_t>(value_of(scheduler.policy, kPolicies, "scheduler policy"));
  attributes.nice = scheduler.nice;
  attributes.priority = static_cast<std::uint32_t>(scheduler.priority);
  attributes.runtime = scheduler.runtime;
  attributes.deadline = scheduler.deadline;
  attributes.period = scheduler.period;
  for (const std::string& flag : scheduler.flags)
    attributes.flags |= static_cast<std::uint64_t>(value_of(flag, kSchedFlags, "scheduler flag"));
  if (::syscall(SYS_sched_setattr, 0, &attributes, 0) < 0) throw_errno("set the scheduler to {}", scheduler.policy);
}

bool ends_at_fork(const spec::Scheduler& scheduler) {
  const auto& flags = scheduler.flags;
  return scheduler.policy == "SCHED_DEADLINE" ||
         std::find(flags.begin(), flags.end(), "SCHED_FLAG_RESET_ON_FORK") != flags.end();
}

void set_io_priority(const spec::IoPriority& priority) {
  const auto io_class = value_of(priority.io_class, kIoClasses, "I/O priority class");
  const int level = io_class == IOPRIO_CLASS_IDLE ? 0 : priority.priority;
  const int value = io_class << IOPRIO_CLASS_SHIFT | level;
  if (::syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) < 0)
    throw_errno("set the I/O priority to {} {}", priority.io_class, level);
}

void set_personality(const spec::Personality& personality) {
  const unsigned long domain = personality.domain == "LINUX32" ? PER_LINUX32 : PER_LINUX;
  if (::personality(domain) < 0) throw_errno("set the personality {}", personality.domain);
}

void set_time_offsets(pid_t pid, const std::map<std::string, spec::TimeOffset>& offsets) {
  if (offsets.empty()) return;
  std::string text;
  for (const auto& [clock, offset] : offsets) text += fmt::format("{} {} {}\n", clock, offset.secs, offset.nanosecs);
  const std::string who = pid == 0 ? "self" : std::to_string(pid);
  sys::write_file(fmt::format("/proc/{}/timens_offsets", who), text);
}

void set_cpu_affinity(const std::string& cpus) {
  if (cpus.empty()) return;
  const BitMask mask(*spec::parse_number_list(cpus));
  if (::syscall(SYS_sched_setaffinity, 0, mask.bytes(), mask.data()) < 0) throw_errno("run on the CPUs {}", cpus);
}

void set_memory_policy(const spec::MemoryPolicy& policy) {
  unsigned mode = static_cast<unsigned>(value_of(policy.mode, kMemoryModes, "memory policy"));
  for (const std::string& flag : policy.flags)
    mode |= static_cast<unsigned>(value_of(flag, kMemoryFlags, "flag of the memory policy"));
  const BitMask nodes(policy.nodes.empty() ? std::vector<unsigned>() : *spec::parse_number_list(policy.nodes));
  // The kernel takes the number of bits plus one.
  const unsigned long bits = policy.nodes.empty() ? 0 : nodes.bytes() * CHAR_BIT + 1;
  if (::syscall(SYS_set_mempolicy, mode, bits == 0 ? nullptr : nodes.data(), bits) < 0)
    throw_errno("linux.memoryPolicy: set {}{}{}", policy.mode, policy.nodes.empty() ? "" : " on the nodes ",
                policy.nodes);
}

Fd ExecLabels::open_proc(const spec::Process& process) {
  if (process.apparmor_profile.empty() && process.selinux_label.empty()) return Fd();
  if (!process.apparmor_profile.empty() &&
      !starts_with(sys::try_read_file("/sys/module/apparmor/parameters/enabled").value_or("N"), "Y"))
    throw_error("process.apparmorProfile: AppArmor is not enabled on this host");
  if (!process.selinux_label.empty() && ::access("/sys/fs/selinux/enforce", F_OK) < 0)
    throw_error("process.selinuxLabel: SELinux is not enabled on this host");
  Fd proc(::open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!proc) throw_errno("open /proc");
  return proc;
}

void ExecLabels::open(const spec::Process& process, int proc_fd) {
  const auto open_file = [&](const char* name, const char* what) {
    Fd file(::openat(proc_fd, name, O_WRONLY | O_CLOEXEC));
    if (!file) throw_errno("open /proc/{} for the {}", name, what);
    return file;
  };
  // Linux 5.8 gave AppArmor a directory of its own, beside a file that may belong to another module.
  if (!process.apparmor_profile.empty())
    apparmor_ = open_file(
        ::faccessat(proc_fd, "self/attr/apparmor/exec", F_OK, 0) == 0 ? "self/attr/apparmor/exec" : "self/attr/exec",
        "AppArmor profile");
  if (!process.selinux_label.empty()) selinux_ = open_file("self/attr/exec", "SELinux label");
}

void ExecLabels::apply(const spec::Process& process) const {
  const std::string profile = "exec " + process.apparmor_profile;
  if (apparmor_ && ::write(apparmor_.get(), profile.data(), profile.size()) < 0)
    throw_errno("set the AppArmor profile {}", quoted(process.apparmor_profile));
  if (selinux_ && ::write(selinux_.get(), process.selinux_label.data(), process.selinux_label.size()) < 0)
    throw_errno("set the SELinux label {}", quoted(process.selinux_label));
}

}  // namespace kelp::runtime
