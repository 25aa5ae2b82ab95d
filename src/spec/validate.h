#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "spec/runtime_config.h"

namespace kelp::spec {

/// Cross-field checks of a parsed config.json: what no kernel call would refuse clearly. Errors name the JSON path.
/// What it needs of a host (a cgroup, a namespace path) is not looked at.
void validate(const RuntimeConfig& config);
/// Checks of a process alone (kelp-oci exec). path is the JSON path of the object, "process".
void validate_process(const Process& process, std::string_view path);

/// Words that linux.memoryPolicy takes, for `features`.
Strings memory_policy_modes();
Strings memory_policy_flags();

/// Numbers of a list of CPUs or memory nodes, "0-3,7", ascending; nullopt when it is none or goes beyond 8191.
std::optional<std::vector<unsigned>> parse_number_list(std::string_view text);

/// true for a sysctl that belongs to a namespace; *ns is set to "ipc", "network" or "uts". Takes both a.b.c and a/b/c.
bool is_namespaced_sysctl(std::string_view key, std::string_view* ns);

}  // namespace kelp::spec
