#pragma once

#include <sys/types.h>

#include <string>

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
void set_io_priority(const spec::IoPriority& priority);
void set_personality(const spec::Personality& personality);
/// Writes /proc/<pid>/timens_offsets; pid 0 = self. Before the first process enters the time namespace.
void set_time_offsets(pid_t pid, const std::map<std::string, spec::TimeOffset>& offsets);
/// All per-process settings of the payload: rlimits, oom_score_adj, scheduler, ioPriority. Before the user changes.
void apply_process_settings(const spec::Process& process);

/// AppArmor profile and SELinux label for the next exec. An error when one is asked for and the host has no such
/// module. Right before exec: with AppArmor the change takes effect there.
void set_exec_labels(const spec::Process& process);

}  // namespace kelp::runtime
