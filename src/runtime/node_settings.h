#pragma once

#include <sys/types.h>

#include <string>

#include "base/owned.h"
#include "spec/runtime_config.h"

namespace kelp::runtime {

/// sethostname, setdomainname; "" = leave. Needs an own uts namespace (validate() has checked it).
void set_host_names(const std::string& hostname, const std::string& domainname);
/// Writes linux.sysctl below /proc/sys of the process' current root; only namespaced keys (validate() has checked).
/// A missing or read-only one is an error that names the key.
void set_sysctls(const spec::StringMap& sysctl);
/// As above, `proc_sys_fd` an open directory /proc/sys that stays reachable after the pivot; borrowed.
void set_sysctls_at(int proc_sys_fd, const spec::StringMap& sysctl);
/// setrlimit for each; the hard limit is never raised silently: EPERM names the limit in force.
void set_rlimits(const std::vector<spec::Rlimit>& rlimits);
/// /proc/self/oom_score_adj. Lowering it needs CAP_SYS_RESOURCE of the host: then the nearest allowed value is taken
/// when `best_effort`, else it is an error.
void set_oom_score_adj(int value, bool best_effort);
void set_scheduler(const spec::Scheduler& scheduler);
/// A child would not have it: the kernel resets it there, or refuses to fork.
[[nodiscard]] bool ends_at_fork(const spec::Scheduler& scheduler);
void set_io_priority(const spec::IoPriority& priority);
void set_personality(const spec::Personality& personality);
/// Writes /proc/<pid>/timens_offsets; pid 0 = self. Before the first process enters the time namespace.
void set_time_offsets(pid_t pid, const std::map<std::string, spec::TimeOffset>& offsets);
/// sched_setaffinity of this process; `cpus` a list such as "0-3,7" (spec::parse_number_list), "" = leave.
void set_cpu_affinity(const std::string& cpus);
/// set_mempolicy(2). A kernel without NUMA or without this mode is an error.
void set_memory_policy(const spec::MemoryPolicy& policy);

/// AppArmor profile and SELinux label of the payload.
class ExecLabels {
 public:
  /// The runtime's own /proc when a label is asked for (the container's could be another file system), else nothing.
  /// throws  Error when the host's kernel does not have that security module on
  static Fd open_proc(const spec::Process& process);
  /// Opens the kernel's files below `proc_fd`, in the process that executes the payload: no other may write them.
  void open(const spec::Process& process, int proc_fd);
  /// Right before exec, where the change takes effect.
  void apply(const spec::Process& process) const;
  /// What must stay open until then; -1 = none.
  [[nodiscard]] int apparmor_fd() const noexcept { return apparmor_.get(); }
  [[nodiscard]] int selinux_fd() const noexcept { return selinux_.get(); }

 private:
  Fd apparmor_, selinux_;
};

}  // namespace kelp::runtime
