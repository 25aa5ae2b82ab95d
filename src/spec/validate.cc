#include "spec/validate.h"

#include <algorithm>
#include <array>
#include <set>

#include "base/error.h"
#include "base/text.h"

namespace kelp::spec {
namespace {

constexpr std::array<std::string_view, 8> kNamespaces = {"pid", "network", "mount",  "ipc",
                                                         "uts", "user",    "cgroup", "time"};
constexpr std::array<std::string_view, 16> kRlimits = {
    "RLIMIT_AS",      "RLIMIT_CORE",     "RLIMIT_CPU",        "RLIMIT_DATA",   "RLIMIT_FSIZE", "RLIMIT_LOCKS",
    "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE", "RLIMIT_NICE",       "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_RSS",
    "RLIMIT_RTPRIO",  "RLIMIT_RTTIME",   "RLIMIT_SIGPENDING", "RLIMIT_STACK"};
constexpr std::array<std::string_view, 7> kPolicies = {"SCHED_OTHER", "SCHED_FIFO", "SCHED_RR",      "SCHED_BATCH",
                                                       "SCHED_ISO",   "SCHED_IDLE", "SCHED_DEADLINE"};
constexpr std::array<std::string_view, 3> kIoClasses = {"IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"};
constexpr std::array<std::string_view, 7> kMemoryModes = {
    "MPOL_DEFAULT",   "MPOL_BIND",           "MPOL_INTERLEAVE", "MPOL_WEIGHTED_INTERLEAVE",
    "MPOL_PREFERRED", "MPOL_PREFERRED_MANY", "MPOL_LOCAL"};
constexpr std::array<std::string_view, 3> kMemoryFlags = {"MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES",
                                                          "MPOL_F_STATIC_NODES"};
constexpr std::array<std::string_view, 8> kPropagations = {"private", "rprivate", "slave",      "rslave",
                                                           "shared",  "rshared",  "unbindable", "runbindable"};

template <size_t N>
bool one_of(std::string_view word, const std::array<std::string_view, N>& words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

template <size_t N>
std::string listed(const std::array<std::string_view, N>& words) {
  std::string text;
  for (const std::string_view word : words) {
    if (!text.empty()) text += ", ";
    text += word;
  }
  return text;
}

bool absolute(std::string_view path) { return !path.empty() && path.front() == '/'; }

void check_absolute(std::string_view where, std::string_view path) {
  if (!absolute(path)) throw_error("{}: {} is not an absolute path", where, quoted(path));
}

void check_version(const std::string& version) {
  const std::vector<std::string> parts = split(version, '.', 3);
  const bool good = parts.size() == 3 && to_int(parts[0], 0, 1000) && to_int(parts[1], 0, 1000) && !parts[2].empty();
  if (!good) throw_error("ociVersion: {} is not a version such as 1.2.0", quoted(version));
  if (parts[0] != "1") throw_error("ociVersion: version {} is not supported, 1.x is", version);
}

void check_rlimits(const std::vector<Rlimit>& rlimits, std::string_view path) {
  std::set<std::string_view> seen;
  for (size_t i = 0; i < rlimits.size(); ++i) {
    const Rlimit& limit = rlimits[i];
    if (!one_of(limit.type, kRlimits))
      throw_error("{}.rlimits[{}].type: unknown resource limit {}", path, i, quoted(limit.type));
    if (!seen.insert(limit.type).second) throw_error("{}.rlimits[{}].type: {} appears twice", path, i, limit.type);
    if (limit.soft > limit.hard)
      throw_error("{}.rlimits[{}]: the soft limit {} is above the hard limit {}", path, i, limit.soft, limit.hard);
  }
}

void check_scheduler(const Scheduler& scheduler, std::string_view path) {
  if (!one_of(scheduler.policy, kPolicies))
    throw_error("{}.scheduler.policy: {} is not one of {}", path, quoted(scheduler.policy), listed(kPolicies));
  const bool realtime = scheduler.policy == "SCHED_FIFO" || scheduler.policy == "SCHED_RR";
  if (scheduler.priority != 0 && !realtime)
    throw_error("{}.scheduler.priority: only SCHED_FIFO and SCHED_RR have a priority", path);
  if (scheduler.nice < -20 || scheduler.nice > 19)
    throw_error("{}.scheduler.nice: {} is not in -20..19", path, scheduler.nice);
  if ((scheduler.runtime != 0 || scheduler.deadline != 0 || scheduler.period != 0) &&
      scheduler.policy != "SCHED_DEADLINE")
    throw_error("{}.scheduler: runtime, deadline and period belong to SCHED_DEADLINE", path);
}

void check_namespaces(const RuntimeConfig& config) {
  std::set<std::string_view> seen;
  const auto& namespaces = config.linux_.namespaces;
  for (size_t i = 0; i < namespaces.size(); ++i) {
    if (!one_of(namespaces[i].type, kNamespaces))
      throw_error("linux.namespaces[{}].type: {} is not one of {}", i, quoted(namespaces[i].type), listed(kNamespaces));
    if (!seen.insert(namespaces[i].type).second)
      throw_error("linux.namespaces[{}].type: {} appears twice", i, namespaces[i].type);
    if (!namespaces[i].path.empty()) check_absolute(fmt::format("linux.namespaces[{}].path", i), namespaces[i].path);
  }
  const auto needs = [&](const char* member, const char* type) {
    if (config.find_namespace(type) == nullptr)
      throw_error("{}: needs a {} namespace in linux.namespaces, else it would change the host", member, type);
  };
  if (!config.hostname.empty()) needs("hostname", "uts");
  if (!config.domainname.empty()) needs("domainname", "uts");
  if (!config.linux_.time_offsets.empty()) needs("linux.timeOffsets", "time");
  for (const auto& [clock, offset] : config.linux_.time_offsets)
    if (clock != "monotonic" && clock != "boottime")
      throw_error("linux.timeOffsets.{}: only monotonic and boottime have offsets", printable(clock));
}

void check_mappings(std::string_view where, const sys::IdRanges& ranges) {
  for (size_t i = 0; i < ranges.size(); ++i) {
    const sys::IdRange& a = ranges[i];
    if (std::uint64_t{a.inside} + a.count > UINT32_MAX || std::uint64_t{a.outside} + a.count > UINT32_MAX)
      throw_error("{}[{}]: the range ends above {}", where, i, UINT32_MAX - 1);
    for (size_t j = 0; j < i; ++j) {
      const sys::IdRange& b = ranges[j];
      const auto meets = [](std::uint64_t x, std::uint64_t n, std::uint64_t y, std::uint64_t m) {
        return x < y + m && y < x + n;
      };
      if (meets(a.inside, a.count, b.inside, b.count)) throw_error("{}[{}]: overlaps with entry {}", where, i, j);
      if (meets(a.outside, a.count, b.outside, b.count))
        throw_error("{}[{}]: host ids overlap with entry {}", where, i, j);
    }
  }
}

void check_user_namespace(const RuntimeConfig& config) {
  const Namespace* user = config.find_namespace("user");
  const bool mapped = !config.linux_.uid_mappings.empty() || !config.linux_.gid_mappings.empty();
  if (mapped && user == nullptr) throw_error("linux.uidMappings: mappings need a user namespace in linux.namespaces");
  if (user != nullptr && user->path.empty()) {
    if (config.linux_.uid_mappings.empty()) throw_error("linux.uidMappings: a new user namespace needs mappings");
    if (config.linux_.gid_mappings.empty()) throw_error("linux.gidMappings: a new user namespace needs mappings");
  }
  check_mappings("linux.uidMappings", config.linux_.uid_mappings);
  check_mappings("linux.gidMappings", config.linux_.gid_mappings);
}

void check_mounts(const RuntimeConfig& config) {
  for (size_t i = 0; i < config.mounts.size(); ++i) {
    const Mount& mount = config.mounts[i];
    if (mount.destination.empty()) throw_error("mounts[{}].destination: is empty", i);
    if (mount.uid_mappings.empty() != mount.gid_mappings.empty())
      throw_error("mounts[{}]: uidMappings and gidMappings belong together", i);
    check_mappings(fmt::format("mounts[{}].uidMappings", i), mount.uid_mappings);
    check_mappings(fmt::format("mounts[{}].gidMappings", i), mount.gid_mappings);
  }
  if (!config.linux_.masked_paths.empty() || !config.linux_.readonly_paths.empty() || !config.linux_.devices.empty()) {
    for (size_t i = 0; i < config.linux_.masked_paths.size(); ++i)
      check_absolute(fmt::format("linux.maskedPaths[{}]", i), config.linux_.masked_paths[i]);
    for (size_t i = 0; i < config.linux_.readonly_paths.size(); ++i)
      check_absolute(fmt::format("linux.readonlyPaths[{}]", i), config.linux_.readonly_paths[i]);
    for (size_t i = 0; i < config.linux_.devices.size(); ++i)
      check_absolute(fmt::format("linux.devices[{}].path", i), config.linux_.devices[i].path);
  }
  const std::string& propagation = config.linux_.rootfs_propagation;
  if (!propagation.empty() && !one_of(propagation, kPropagations))
    throw_error("linux.rootfsPropagation: {} is not one of {}", quoted(propagation), listed(kPropagations));
}

void check_hooks(const Hooks& hooks) {
  const auto check = [](const char* name, const std::vector<Hook>& list) {
    for (size_t i = 0; i < list.size(); ++i) check_absolute(fmt::format("hooks.{}[{}].path", name, i), list[i].path);
  };
  check("prestart", hooks.prestart);
  check("createRuntime", hooks.create_runtime);
  check("createContainer", hooks.create_container);
  check("startContainer", hooks.start_container);
  check("poststart", hooks.poststart);
  check("poststop", hooks.poststop);
}

void check_sysctls(const RuntimeConfig& config) {
  for (const auto& [key, value] : config.linux_.sysctl) {
    std::string_view ns;
    if (!is_namespaced_sysctl(key, &ns))
      throw_error("linux.sysctl: {} belongs to the whole host, not to a namespace", quoted(key));
    if (config.find_namespace(ns) == nullptr)
      throw_error("linux.sysctl: {} needs a {} namespace in linux.namespaces, else it would change the host",
                  quoted(key), ns);
    if (key.find("..") != std::string::npos) throw_error("linux.sysctl: {} is no name of a sysctl", quoted(key));
  }
}

void check_seccomp(const Seccomp& seccomp) {
  bool notifies = false;
  if (seccomp.default_action == SeccompAction::notify)
    throw_error("linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default action");
  if (seccomp.default_errno_ret && seccomp.default_action != SeccompAction::error &&
      seccomp.default_action != SeccompAction::trace)
    throw_error("linux.seccomp.defaultErrnoRet: only SCMP_ACT_ERRNO and SCMP_ACT_TRACE take a value");
  for (size_t i = 0; i < seccomp.syscalls.size(); ++i) {
    const SeccompRule& rule = seccomp.syscalls[i];
    if (rule.errno_ret && rule.action != SeccompAction::error && rule.action != SeccompAction::trace)
      throw_error("linux.seccomp.syscalls[{}].errnoRet: only SCMP_ACT_ERRNO and SCMP_ACT_TRACE take a value", i);
    if (rule.action == SeccompAction::notify) {
      notifies = true;
      if (std::find(rule.names.begin(), rule.names.end(), "write") != rule.names.end())
        throw_error("linux.seccomp.syscalls[{}]: SCMP_ACT_NOTIFY cannot be used for write", i);
    }
  }
  if (notifies && seccomp.listener_path.empty())
    throw_error("linux.seccomp.listenerPath: is required when a rule has the action SCMP_ACT_NOTIFY");
  if (!notifies && !seccomp.listener_path.empty())
    throw_error("linux.seccomp.listenerPath: no rule has the action SCMP_ACT_NOTIFY");
  if (seccomp.listener_path.empty() && !seccomp.listener_metadata.empty())
    throw_error("linux.seccomp.listenerMetadata: needs listenerPath");
}

/// As the kernel's dev_valid_name(), without '%', which would make it choose a number.
bool is_device_name(std::string_view name) {
  return !name.empty() && name.size() < 16 && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/:% \t\n\v\f\r\0", 10)) == std::string_view::npos;
}

void check_net_devices(const RuntimeConfig& config) {
  std::set<std::string_view> inside;
  for (const auto& [name, name_inside] : config.linux_.net_devices) {
    for (const std::string& each : {name, name_inside})
      if (!is_device_name(each)) throw_error("linux.netDevices: {} is no name of a network device", quoted(each));
    if (!inside.insert(name_inside).second)
      throw_error("linux.netDevices.{}.name: {} is given to two devices", name, name_inside);
  }
  if (!inside.empty() && config.find_namespace("network") == nullptr)
    throw_error("linux.netDevices: needs a network namespace in linux.namespaces");
}

void check_memory_policy(const MemoryPolicy& policy) {
  if (!one_of(policy.mode, kMemoryModes))
    throw_error("linux.memoryPolicy.mode: {} is not one of {}", quoted(policy.mode), listed(kMemoryModes));
  if (!policy.nodes.empty() && !parse_number_list(policy.nodes))
    throw_error("linux.memoryPolicy.nodes: {} is no list such as 0-3,7", quoted(policy.nodes));
  for (const std::string& flag : policy.flags)
    if (!one_of(flag, kMemoryFlags))
      throw_error("linux.memoryPolicy.flags: {} is not one of {}", quoted(flag), listed(kMemoryFlags));
}

}  // namespace

Strings memory_policy_modes() { return {kMemoryModes.begin(), kMemoryModes.end()}; }
Strings memory_policy_flags() { return {kMemoryFlags.begin(), kMemoryFlags.end()}; }

std::optional<std::vector<unsigned>> parse_number_list(std::string_view text) {
  constexpr std::int64_t kMaxNumber = 8191;  // CONFIG_NR_CPUS and MAX_NUMNODES are never larger
  std::set<unsigned> numbers;
  for (const std::string& part : split(text, ',')) {
    const std::vector<std::string> ends = split(trim(part), '-', 2);
    const auto first = to_int(ends[0], 0, kMaxNumber);
    const auto last = ends.size() > 1 ? to_int(ends[1], 0, kMaxNumber) : first;
    if (!first || !last || *last < *first) return std::nullopt;
    for (std::int64_t number = *first; number <= *last; ++number) numbers.insert(static_cast<unsigned>(number));
  }
  return std::vector<unsigned>(numbers.begin(), numbers.end());
}

bool is_namespaced_sysctl(std::string_view key, std::string_view* ns) {
  std::string dotted(key);
  // net/ipv4/conf/eth0.100/forwarding: with slashes as separators dots belong to the names.
  if (const size_t first = dotted.find_first_of("./"); first != std::string::npos && dotted[first] == '/') {
    for (char& c : dotted) c = c == '/' ? '.' : c == '.' ? '/' : c;
  }
  const auto is = [&](std::string_view prefix) { return starts_with(dotted, prefix); };
  static constexpr std::array<std::string_view, 9> kIpc = {
      "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni",          "kernel.sem",        "kernel.shmall",
      "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced", "kernel.shm_next_id"};
  std::string_view found;
  if (one_of(std::string_view(dotted), kIpc) || is("fs.mqueue.") || dotted == "kernel.msg_next_id" ||
      dotted == "kernel.sem_next_id" || dotted == "kernel.auto_msgmni")
    found = "ipc";
  else if (is("net."))
    found = "network";
  else if (dotted == "kernel.hostname" || dotted == "kernel.domainname")
    found = "uts";
  else if (is("user."))
    found = "user";
  if (found.empty()) return false;
  if (ns != nullptr) *ns = found;
  return true;
}

void validate_process(const Process& process, std::string_view path) {
  check_absolute(fmt::format("{}.cwd", path), process.cwd);
  if (process.args.empty()) throw_error("{}.args: must hold at least the program", path);
  for (size_t i = 0; i < process.env.size(); ++i)
    if (const size_t equals = process.env[i].find('='); equals == 0 || equals == std::string::npos)
      throw_error("{}.env[{}]: {} is not NAME=VALUE", path, i, quoted(process.env[i]));
  check_rlimits(process.rlimits, path);
  if (process.scheduler) check_scheduler(*process.scheduler, path);
  if (process.io_priority && !one_of(process.io_priority->io_class, kIoClasses))
    throw_error("{}.ioPriority.class: {} is not one of {}", path, quoted(process.io_priority->io_class),
                listed(kIoClasses));
  for (size_t i = 0; i < process.cpu_affinity.size(); ++i)
    if (!process.cpu_affinity[i].empty() && !parse_number_list(process.cpu_affinity[i]))
      throw_error("{}.execCPUAffinity.{}: {} is no list such as 0-3,7", path, i == 0 ? "initial" : "final",
                  quoted(process.cpu_affinity[i]));
}

void validate(const RuntimeConfig& config) {
  check_version(config.oci_version);
  if (!config.root) throw_error("root: is required");
  if (config.root->path.empty()) throw_error("root.path: is empty");
  if (config.process) validate_process(*config.process, "process");
  check_namespaces(config);
  check_user_namespace(config);
  check_mounts(config);
  check_hooks(config.hooks);
  check_sysctls(config);
  check_net_devices(config);
  if (config.linux_.seccomp) check_seccomp(*config.linux_.seccomp);
  if (config.linux_.memory_policy) check_memory_policy(*config.linux_.memory_policy);
  if (config.linux_.intel_rdt) throw_error("linux.intelRdt: resctrl is the host administrator's and is not supported");
  if (const auto& personality = config.linux_.personality) {
    if (personality->domain != "LINUX" && personality->domain != "LINUX32")
      throw_error("linux.personality.domain: {} is not one of LINUX, LINUX32", quoted(personality->domain));
    if (!personality->flags.empty()) throw_error("linux.personality.flags: no flag is defined by the specification");
  }
}

}  // namespace kelp::spec
