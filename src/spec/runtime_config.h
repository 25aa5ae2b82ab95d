#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sys/idmap.h"

/// config.json of the OCI runtime specification 1.3 as plain structs: no behaviour, no file, no process.
/// An absent object is std::nullopt where "absent" and "empty" differ, else empty. Member names are the spec's in
/// snake_case. source: opencontainers/runtime-spec config.md, config-linux.md
namespace kelp::spec {

using Strings = std::vector<std::string>;
using StringMap = std::map<std::string, std::string>;

struct Box {
  unsigned height = 0, width = 0;
};

struct User {
  std::uint32_t uid = 0, gid = 0;
  std::optional<std::uint32_t> umask;
  std::vector<std::uint32_t> additional_gids;
};

struct Rlimit {
  std::string type;                  ///< "RLIMIT_NOFILE"
  std::uint64_t hard = 0, soft = 0;  ///< UINT64_MAX = unlimited
};

/// Names as written ("CAP_CHOWN"); names that this kernel or kelp does not know are dropped with a warning later.
struct Capabilities {
  Strings bounding, effective, inheritable, permitted, ambient;
};

struct Scheduler {
  std::string policy;  ///< "SCHED_OTHER" …
  std::int32_t nice = 0, priority = 0;
  Strings flags;                                        ///< "SCHED_FLAG_RESET_ON_FORK" …
  std::uint64_t runtime = 0, deadline = 0, period = 0;  ///< ns
};

struct IoPriority {
  std::string io_class;  ///< "IOPRIO_CLASS_BE" …
  int priority = 0;
};

struct Process {
  bool terminal = false;
  std::optional<Box> console_size;
  std::string cwd = "/";
  Strings env, args;
  User user;
  std::optional<Capabilities> capabilities;
  std::vector<Rlimit> rlimits;
  bool no_new_privileges = false;
  std::string apparmor_profile, selinux_label;
  std::optional<int> oom_score_adj;
  std::optional<Scheduler> scheduler;
  std::optional<IoPriority> io_priority;
  Strings cpu_affinity;  ///< {initial, final} of execCPUAffinity when present, else empty
};

struct Root {
  std::string path;
  bool readonly = false;
};

struct Mount {
  std::string destination, type, source;
  Strings options;
  sys::IdRanges uid_mappings, gid_mappings;  ///< of an idmapped mount; outside = hostID
};

struct Hook {
  std::string path;
  Strings args, env;
  std::optional<int> timeout;  ///< seconds, > 0
};

struct Hooks {
  std::vector<Hook> prestart, create_runtime, create_container, start_container, poststart, poststop;
  [[nodiscard]] bool empty() const {
    return prestart.empty() && create_runtime.empty() && create_container.empty() && start_container.empty() &&
           poststart.empty() && poststop.empty();
  }
};

struct Namespace {
  std::string type;  ///< pid network mount ipc uts user cgroup time
  std::string path;  ///< "" = new
};

struct Device {
  char type = 'c';  ///< c u b p
  std::string path;
  std::int64_t major = 0, minor = 0;
  std::optional<std::uint32_t> file_mode, uid, gid;
};

struct DeviceRule {
  bool allow = false;
  std::string type;  ///< "", a, c, b
  std::optional<std::int64_t> major, minor;
  std::string access;
};

struct MemoryLimits {
  std::optional<std::int64_t> limit, reservation, swap, kernel, kernel_tcp;  ///< bytes, -1 = unlimited
  std::optional<std::uint64_t> swappiness;
  std::optional<bool> disable_oom_killer, use_hierarchy, check_before_update;
};

struct CpuLimits {
  std::optional<std::uint64_t> shares, burst, realtime_period;
  std::optional<std::int64_t> quota, realtime_runtime;  ///< µs, -1 = unlimited
  std::optional<std::uint64_t> period;                  ///< µs
  std::string cpus, mems;
  std::optional<std::int64_t> idle;
};

struct WeightDevice {
  std::int64_t major = 0, minor = 0;
  std::optional<std::uint16_t> weight, leaf_weight;
};
struct ThrottleDevice {
  std::int64_t major = 0, minor = 0;
  std::uint64_t rate = 0;
};
struct BlockIoLimits {
  std::optional<std::uint16_t> weight, leaf_weight;
  std::vector<WeightDevice> weight_device;
  std::vector<ThrottleDevice> read_bps, write_bps, read_iops, write_iops;
};

struct HugepageLimit {
  std::string page_size;
  std::uint64_t limit = 0;
};

struct Resources {
  std::vector<DeviceRule> devices;
  std::optional<MemoryLimits> memory;
  std::optional<CpuLimits> cpu;
  std::optional<std::int64_t> pids_limit;  ///< <= 0 = unlimited
  std::optional<BlockIoLimits> block_io;
  std::vector<HugepageLimit> hugepages;
  std::optional<std::uint32_t> network_class_id;
  std::vector<std::pair<std::string, std::uint32_t>> network_priorities;
  std::map<std::string, std::pair<std::optional<std::uint32_t>, std::optional<std::uint32_t>>>
      rdma;           ///< handles, objects
  StringMap unified;  ///< cgroup v2 file → value
};

enum class SeccompAction { kill, kill_process, kill_thread, trap, error, trace, allow, log, notify };
enum class SeccompOp { ne, lt, le, eq, ge, gt, masked_eq };

struct SeccompArg {
  unsigned index = 0;  ///< 0..5
  std::uint64_t value = 0, value_two = 0;
  SeccompOp op = SeccompOp::eq;
};

struct SeccompRule {
  Strings names;
  SeccompAction action = SeccompAction::allow;
  std::optional<unsigned> errno_ret;
  std::vector<SeccompArg> args;
};

struct Seccomp {
  SeccompAction default_action = SeccompAction::allow;
  std::optional<unsigned> default_errno_ret;
  Strings architectures;  ///< "SCMP_ARCH_X86_64" …
  Strings flags;          ///< "SECCOMP_FILTER_FLAG_LOG" …
  std::string listener_path, listener_metadata;
  std::vector<SeccompRule> syscalls;
};

struct TimeOffset {
  std::int64_t secs = 0;
  std::uint32_t nanosecs = 0;
};

struct Personality {
  std::string domain;  ///< "LINUX", "LINUX32"
  Strings flags;
};

struct MemoryPolicy {
  std::string mode;   ///< "MPOL_BIND" …
  std::string nodes;  ///< "0-1,3", "" = none
  Strings flags;      ///< "MPOL_F_STATIC_NODES" …
};

struct IntelRdt {
  std::string clos_id, l3_cache_schema, mem_bw_schema;
  bool enable_cmt = false, enable_mbm = false;
};

struct Linux {
  std::vector<Namespace> namespaces;
  sys::IdRanges uid_mappings, gid_mappings;        ///< inside = containerID, outside = hostID
  std::map<std::string, TimeOffset> time_offsets;  ///< "monotonic", "boottime"
  std::vector<Device> devices;
  StringMap net_devices;  ///< interface of the runtime's network namespace → its name in the container
  std::string cgroups_path;
  Resources resources;
  std::optional<IntelRdt> intel_rdt;
  StringMap sysctl;
  std::optional<Seccomp> seccomp;
  std::string rootfs_propagation;  ///< "", private, slave, shared, unbindable and the r… forms
  Strings masked_paths, readonly_paths;
  std::string mount_label;
  std::optional<Personality> personality;
  std::optional<MemoryPolicy> memory_policy;
};

struct RuntimeConfig {
  std::string oci_version = "1.2.0";
  std::optional<Process> process;
  std::optional<Root> root;
  std::string hostname, domainname;
  std::vector<Mount> mounts;
  Hooks hooks;
  StringMap annotations;
  Linux linux_;  ///< "linux" is a macro of the compiler in GNU mode

  /// The namespace entry of a type, nullptr when it is not in the list.
  [[nodiscard]] const Namespace* find_namespace(std::string_view type) const {
    for (const Namespace& entry : linux_.namespaces)
      if (entry.type == type) return &entry;
    return nullptr;
  }
};

/// Largest config.json, process.json or seccomp profile that is read.
inline constexpr size_t kMaxConfigBytes = 16 << 20;

/// Parses config.json. Unknown members are ignored, as the specification wants; wrong types, numbers out of range and
/// unknown words of closed lists are an Error "linux.seccomp.syscalls[3].action: …". Cross-field rules: validate.h.
RuntimeConfig parse_runtime_config(std::string_view text);
/// The `process` object alone (kelp-oci exec --process).
Process parse_process(std::string_view text);
/// The `linux.resources` object alone (kelp-oci update).
Resources parse_resources(std::string_view text);
/// The `linux.seccomp` object alone.
Seccomp parse_seccomp(std::string_view text);

/// config.json on one line. Absent and empty members are left out where the specification allows it.
std::string print_runtime_config(const RuntimeConfig& config);
/// As above, indented by two spaces, for people (kelp-oci spec).
std::string print_runtime_config_pretty(const RuntimeConfig& config);
std::string print_process(const Process& process);

/// "SCMP_ACT_ERRNO" ↔ SeccompAction.
const char* seccomp_action_name(SeccompAction action) noexcept;
std::optional<SeccompAction> seccomp_action_from_name(std::string_view name) noexcept;
/// "SCMP_CMP_EQ" ↔ SeccompOp.
const char* seccomp_op_name(SeccompOp op) noexcept;
std::optional<SeccompOp> seccomp_op_from_name(std::string_view name) noexcept;

}  // namespace kelp::spec
