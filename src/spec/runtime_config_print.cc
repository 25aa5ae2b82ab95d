// Printing of config.json, in the order of the specification. Only what is set is written.
#include <nlohmann/json.hpp>

#include "spec/json_writer.h"
#include "spec/runtime_config.h"

namespace kelp::spec {
namespace {

void write_string_map(JsonWriter& out, std::string_view name, const StringMap& map) {
  if (map.empty()) return;
  out.key(name).begin_object();
  for (const auto& [key, value] : map) out.member(key, value);
  out.end_object();
}

template <typename T, typename Fn>
void write_list(JsonWriter& out, std::string_view name, const std::vector<T>& list, Fn&& write_one) {
  if (list.empty()) return;
  out.key(name).begin_array();
  for (const T& item : list) write_one(item);
  out.end_array();
}

void write_mappings(JsonWriter& out, std::string_view name, const sys::IdRanges& ranges) {
  write_list(out, name, ranges, [&](const sys::IdRange& range) {
    out.begin_object().member("containerID", range.inside).member("hostID", range.outside);
    out.member("size", range.count).end_object();
  });
}

void write_process(JsonWriter& out, const Process& process) {
  out.begin_object();
  out.member("terminal", process.terminal);
  if (process.console_size) {
    out.key("consoleSize").begin_object();
    out.member("height", process.console_size->height).member("width", process.console_size->width).end_object();
  }
  out.key("user").begin_object();
  out.member("uid", process.user.uid).member("gid", process.user.gid).member_opt("umask", process.user.umask);
  write_list(out, "additionalGids", process.user.additional_gids, [&](std::uint32_t gid) { out.value(gid); });
  out.end_object();
  out.member("args", process.args).member_if("env", process.env).member("cwd", process.cwd);
  if (process.capabilities) {
    const Capabilities& caps = *process.capabilities;
    out.key("capabilities").begin_object();
    out.member_if("bounding", caps.bounding).member_if("effective", caps.effective);
    out.member_if("inheritable", caps.inheritable).member_if("permitted", caps.permitted);
    out.member_if("ambient", caps.ambient).end_object();
  }
  write_list(out, "rlimits", process.rlimits, [&](const Rlimit& limit) {
    out.begin_object().member("type", limit.type).member("hard", limit.hard).member("soft", limit.soft).end_object();
  });
  if (process.no_new_privileges) out.member("noNewPrivileges", true);
  out.member_if("apparmorProfile", process.apparmor_profile).member_if("selinuxLabel", process.selinux_label);
  out.member_opt("oomScoreAdj", process.oom_score_adj);
  if (process.scheduler) {
    const Scheduler& scheduler = *process.scheduler;
    out.key("scheduler").begin_object().member("policy", scheduler.policy);
    if (scheduler.nice != 0) out.member("nice", scheduler.nice);
    if (scheduler.priority != 0) out.member("priority", scheduler.priority);
    out.member_if("flags", scheduler.flags);
    if (scheduler.runtime != 0) out.member("runtime", scheduler.runtime);
    if (scheduler.deadline != 0) out.member("deadline", scheduler.deadline);
    if (scheduler.period != 0) out.member("period", scheduler.period);
    out.end_object();
  }
  if (process.io_priority) {
    out.key("ioPriority").begin_object().member("class", process.io_priority->io_class);
    out.member("priority", process.io_priority->priority).end_object();
  }
  if (process.cpu_affinity.size() == 2) {
    out.key("execCPUAffinity").begin_object();
    out.member_if("initial", process.cpu_affinity[0]).member_if("final", process.cpu_affinity[1]).end_object();
  }
  out.end_object();
}

void write_hooks(JsonWriter& out, std::string_view name, const std::vector<Hook>& hooks) {
  write_list(out, name, hooks, [&](const Hook& hook) {
    out.begin_object().member("path", hook.path).member_if("args", hook.args).member_if("env", hook.env);
    out.member_opt("timeout", hook.timeout).end_object();
  });
}

void write_throttles(JsonWriter& out, std::string_view name, const std::vector<ThrottleDevice>& devices) {
  write_list(out, name, devices, [&](const ThrottleDevice& device) {
    out.begin_object().member("major", device.major).member("minor", device.minor).member("rate", device.rate);
    out.end_object();
  });
}

void write_memory(JsonWriter& out, const MemoryLimits& memory) {
  out.key("memory").begin_object();
  out.member_opt("limit", memory.limit).member_opt("reservation", memory.reservation).member_opt("swap", memory.swap);
  out.member_opt("kernel", memory.kernel).member_opt("kernelTCP", memory.kernel_tcp);
  out.member_opt("swappiness", memory.swappiness).member_opt("disableOOMKiller", memory.disable_oom_killer);
  out.member_opt("useHierarchy", memory.use_hierarchy).member_opt("checkBeforeUpdate", memory.check_before_update);
  out.end_object();
}

void write_cpu(JsonWriter& out, const CpuLimits& cpu) {
  out.key("cpu").begin_object();
  out.member_opt("shares", cpu.shares).member_opt("quota", cpu.quota).member_opt("burst", cpu.burst);
  out.member_opt("period", cpu.period).member_opt("realtimeRuntime", cpu.realtime_runtime);
  out.member_opt("realtimePeriod", cpu.realtime_period).member_if("cpus", cpu.cpus).member_if("mems", cpu.mems);
  out.member_opt("idle", cpu.idle).end_object();
}

void write_block_io(JsonWriter& out, const BlockIoLimits& io) {
  out.key("blockIO").begin_object();
  out.member_opt("weight", io.weight).member_opt("leafWeight", io.leaf_weight);
  write_list(out, "weightDevice", io.weight_device, [&](const WeightDevice& device) {
    out.begin_object().member("major", device.major).member("minor", device.minor);
    out.member_opt("weight", device.weight).member_opt("leafWeight", device.leaf_weight).end_object();
  });
  write_throttles(out, "throttleReadBpsDevice", io.read_bps);
  write_throttles(out, "throttleWriteBpsDevice", io.write_bps);
  write_throttles(out, "throttleReadIOPSDevice", io.read_iops);
  write_throttles(out, "throttleWriteIOPSDevice", io.write_iops);
  out.end_object();
}

void write_resources(JsonWriter& out, const Resources& resources) {
  out.key("resources").begin_object();
  write_list(out, "devices", resources.devices, [&](const DeviceRule& rule) {
    out.begin_object().member("allow", rule.allow).member_if("type", rule.type);
    out.member_opt("major", rule.major).member_opt("minor", rule.minor).member_if("access", rule.access).end_object();
  });
  if (resources.memory) write_memory(out, *resources.memory);
  if (resources.cpu) write_cpu(out, *resources.cpu);
  if (resources.pids_limit) out.key("pids").begin_object().member("limit", *resources.pids_limit).end_object();
  if (resources.block_io) write_block_io(out, *resources.block_io);
  write_list(out, "hugepageLimits", resources.hugepages, [&](const HugepageLimit& limit) {
    out.begin_object().member("pageSize", limit.page_size).member("limit", limit.limit).end_object();
  });
  if (resources.network_class_id || !resources.network_priorities.empty()) {
    out.key("network").begin_object().member_opt("classID", resources.network_class_id);
    write_list(out, "priorities", resources.network_priorities, [&](const auto& entry) {
      out.begin_object().member("name", entry.first).member("priority", entry.second).end_object();
    });
    out.end_object();
  }
  if (!resources.rdma.empty()) {
    out.key("rdma").begin_object();
    for (const auto& [device, limits] : resources.rdma) {
      out.key(device).begin_object();
      out.member_opt("hcaHandles", limits.first).member_opt("hcaObjects", limits.second).end_object();
    }
    out.end_object();
  }
  write_string_map(out, "unified", resources.unified);
  out.end_object();
}

void write_seccomp(JsonWriter& out, const Seccomp& seccomp) {
  out.key("seccomp").begin_object();
  out.member("defaultAction", seccomp_action_name(seccomp.default_action));
  out.member_opt("defaultErrnoRet", seccomp.default_errno_ret);
  out.member_if("architectures", seccomp.architectures).member_if("flags", seccomp.flags);
  out.member_if("listenerPath", seccomp.listener_path).member_if("listenerMetadata", seccomp.listener_metadata);
  write_list(out, "syscalls", seccomp.syscalls, [&](const SeccompRule& rule) {
    out.begin_object().member("names", rule.names).member("action", seccomp_action_name(rule.action));
    out.member_opt("errnoRet", rule.errno_ret);
    write_list(out, "args", rule.args, [&](const SeccompArg& arg) {
      out.begin_object().member("index", arg.index).member("value", arg.value);
      if (arg.value_two != 0) out.member("valueTwo", arg.value_two);
      out.member("op", seccomp_op_name(arg.op)).end_object();
    });
    out.end_object();
  });
  out.end_object();
}

void write_linux(JsonWriter& out, const Linux& settings) {
  out.key("linux").begin_object();
  write_mappings(out, "uidMappings", settings.uid_mappings);
  write_mappings(out, "gidMappings", settings.gid_mappings);
  if (!settings.time_offsets.empty()) {
    out.key("timeOffsets").begin_object();
    for (const auto& [clock, offset] : settings.time_offsets)
      out.key(clock).begin_object().member("secs", offset.secs).member("nanosecs", offset.nanosecs).end_object();
    out.end_object();
  }
  write_string_map(out, "sysctl", settings.sysctl);
  write_resources(out, settings.resources);
  out.member_if("cgroupsPath", settings.cgroups_path);
  write_list(out, "namespaces", settings.namespaces, [&](const Namespace& entry) {
    out.begin_object().member("type", entry.type).member_if("path", entry.path).end_object();
  });
  write_list(out, "devices", settings.devices, [&](const Device& device) {
    out.begin_object().member("path", device.path).member("type", std::string_view(&device.type, 1));
    if (device.type != 'p') out.member("major", device.major).member("minor", device.minor);
    out.member_opt("fileMode", device.file_mode).member_opt("uid", device.uid).member_opt("gid", device.gid);
    out.end_object();
  });
  if (!settings.net_devices.empty()) {
    out.key("netDevices").begin_object();
    for (const auto& [interface, name] : settings.net_devices)
      out.key(interface).begin_object().member("name", name).end_object();
    out.end_object();
  }
  if (settings.seccomp) write_seccomp(out, *settings.seccomp);
  out.member_if("rootfsPropagation", settings.rootfs_propagation);
  out.member_if("maskedPaths", settings.masked_paths).member_if("readonlyPaths", settings.readonly_paths);
  out.member_if("mountLabel", settings.mount_label);
  if (settings.intel_rdt) {
    const IntelRdt& rdt = *settings.intel_rdt;
    out.key("intelRdt").begin_object().member_if("closID", rdt.clos_id).member_if("l3CacheSchema", rdt.l3_cache_schema);
    out.member_if("memBwSchema", rdt.mem_bw_schema);
    out.member("enableCMT", rdt.enable_cmt).member("enableMBM", rdt.enable_mbm).end_object();
  }
  if (settings.personality) {
    out.key("personality").begin_object().member("domain", settings.personality->domain);
    out.member_if("flags", settings.personality->flags).end_object();
  }
  if (settings.memory_policy) {
    const MemoryPolicy& policy = *settings.memory_policy;
    out.key("memoryPolicy").begin_object().member("mode", policy.mode).member_if("nodes", policy.nodes);
    out.member_if("flags", policy.flags).end_object();
  }
  out.end_object();
}

}  // namespace

std::string print_process(const Process& process) {
  JsonWriter out(2048);
  write_process(out, process);
  return out.take();
}

std::string print_runtime_config(const RuntimeConfig& config) {
  JsonWriter out(16384);
  out.begin_object().member("ociVersion", config.oci_version);
  if (config.process) {
    out.key("process");
    write_process(out, *config.process);
  }
  if (config.root) {
    out.key("root").begin_object().member("path", config.root->path);
    if (config.root->readonly) out.member("readonly", true);
    out.end_object();
  }
  out.member_if("hostname", config.hostname).member_if("domainname", config.domainname);
  write_list(out, "mounts", config.mounts, [&](const Mount& mount) {
    out.begin_object().member("destination", mount.destination).member_if("type", mount.type);
    out.member_if("source", mount.source).member_if("options", mount.options);
    write_mappings(out, "uidMappings", mount.uid_mappings);
    write_mappings(out, "gidMappings", mount.gid_mappings);
    out.end_object();
  });
  if (!config.hooks.empty()) {
    out.key("hooks").begin_object();
    write_hooks(out, "prestart", config.hooks.prestart);
    write_hooks(out, "createRuntime", config.hooks.create_runtime);
    write_hooks(out, "createContainer", config.hooks.create_container);
    write_hooks(out, "startContainer", config.hooks.start_container);
    write_hooks(out, "poststart", config.hooks.poststart);
    write_hooks(out, "poststop", config.hooks.poststop);
    out.end_object();
  }
  write_string_map(out, "annotations", config.annotations);
  write_linux(out, config.linux_);
  out.end_object();
  return out.take();
}

std::string print_runtime_config_pretty(const RuntimeConfig& config) {
  return nlohmann::ordered_json::parse(print_runtime_config(config)).dump(2) + "\n";
}

}  // namespace kelp::spec
