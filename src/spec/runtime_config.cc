// Parsing of config.json. One function per object of the specification, in its order; each reads the members it knows
// and leaves the rest alone.
#include "spec/runtime_config.h"

#include <array>

#include "base/error.h"
#include "base/text.h"
#include "spec/json_doc.h"

namespace kelp::spec {
namespace {

constexpr std::uint32_t kMaxId = UINT32_MAX - 1;  // (uid_t)-1 means "leave" to the kernel

struct ActionName {
  SeccompAction action;
  const char* name;
};
constexpr std::array<ActionName, 9> kActions = {{{SeccompAction::kill, "SCMP_ACT_KILL"},
                                                 {SeccompAction::kill_process, "SCMP_ACT_KILL_PROCESS"},
                                                 {SeccompAction::kill_thread, "SCMP_ACT_KILL_THREAD"},
                                                 {SeccompAction::trap, "SCMP_ACT_TRAP"},
                                                 {SeccompAction::error, "SCMP_ACT_ERRNO"},
                                                 {SeccompAction::trace, "SCMP_ACT_TRACE"},
                                                 {SeccompAction::allow, "SCMP_ACT_ALLOW"},
                                                 {SeccompAction::log, "SCMP_ACT_LOG"},
                                                 {SeccompAction::notify, "SCMP_ACT_NOTIFY"}}};

struct OpName {
  SeccompOp op;
  const char* name;
};
constexpr std::array<OpName, 7> kOps = {{{SeccompOp::ne, "SCMP_CMP_NE"},
                                         {SeccompOp::lt, "SCMP_CMP_LT"},
                                         {SeccompOp::le, "SCMP_CMP_LE"},
                                         {SeccompOp::eq, "SCMP_CMP_EQ"},
                                         {SeccompOp::ge, "SCMP_CMP_GE"},
                                         {SeccompOp::gt, "SCMP_CMP_GT"},
                                         {SeccompOp::masked_eq, "SCMP_CMP_MASKED_EQ"}}};

void read(JsonValue value, std::string& out) {
  if (value) out = value.str();
}
void read(JsonValue value, bool& out) {
  if (value) out = value.boolean();
}
template <std::integral Int>
requires(!std::is_same_v<Int, bool>) void read(JsonValue value, Int& out) {
  if (value) out = value.integer<Int>();
}
void read(JsonValue value, std::optional<bool>& out) {
  if (value) out = value.boolean();
}
template <typename Int>
void read(JsonValue value, std::optional<Int>& out) {
  if (value) out = value.integer<Int>();
}
void read(JsonValue value, Strings& out) { out = value.strings(); }
void read(JsonValue value, StringMap& out) {
  for (JsonValue member = value.first_member(); member.here(); member = member.next())
    if (member) out[member.key()] = member.str();
}

/// Reads an array of objects with `parse_one`.
template <typename T, typename Fn>
void read_list(JsonValue list, std::vector<T>& out, Fn&& parse_one) {
  if (!list) return;
  out.reserve(list.size());
  for (JsonValue item = list.first_element(); item.here(); item = item.next()) out.push_back(parse_one(item));
}

std::uint32_t parse_id(JsonValue value) { return value.integer<std::uint32_t>(0, kMaxId); }

User parse_user(JsonValue value) {
  User user;
  if (!value) return user;
  if (const JsonValue id = value["uid"]) user.uid = parse_id(id);
  if (const JsonValue id = value["gid"]) user.gid = parse_id(id);
  if (const JsonValue mask = value["umask"]) user.umask = mask.integer<std::uint32_t>(0, 0777);
  read_list(value["additionalGids"], user.additional_gids, parse_id);
  return user;
}

Rlimit parse_rlimit(JsonValue value) {
  Rlimit limit;
  limit.type = value.require("type").str();
  limit.hard = value.require("hard").integer<std::uint64_t>();
  limit.soft = value.require("soft").integer<std::uint64_t>();
  return limit;
}

Capabilities parse_capabilities(JsonValue value) {
  Capabilities caps;
  read(value["bounding"], caps.bounding);
  read(value["effective"], caps.effective);
  read(value["inheritable"], caps.inheritable);
  read(value["permitted"], caps.permitted);
  read(value["ambient"], caps.ambient);
  return caps;
}

Scheduler parse_scheduler(JsonValue value) {
  Scheduler scheduler;
  scheduler.policy = value.require("policy").str();
  read(value["nice"], scheduler.nice);
  read(value["priority"], scheduler.priority);
  read(value["flags"], scheduler.flags);
  read(value["runtime"], scheduler.runtime);
  read(value["deadline"], scheduler.deadline);
  read(value["period"], scheduler.period);
  return scheduler;
}

Process parse_process_object(JsonValue value) {
  Process process;
  read(value["terminal"], process.terminal);
  if (const JsonValue box = value["consoleSize"]) {
    process.console_size.emplace();
    process.console_size->height = box.require("height").integer<unsigned>(0, 65535);
    process.console_size->width = box.require("width").integer<unsigned>(0, 65535);
  }
  process.cwd = value.require("cwd").str();
  read(value["env"], process.env);
  read(value["args"], process.args);
  process.user = parse_user(value["user"]);
  if (const JsonValue caps = value["capabilities"]) process.capabilities = parse_capabilities(caps);
  read_list(value["rlimits"], process.rlimits, parse_rlimit);
  read(value["noNewPrivileges"], process.no_new_privileges);
  read(value["apparmorProfile"], process.apparmor_profile);
  read(value["selinuxLabel"], process.selinux_label);
  if (const JsonValue score = value["oomScoreAdj"]) process.oom_score_adj = score.integer<int>(-1000, 1000);
  if (const JsonValue scheduler = value["scheduler"]) process.scheduler = parse_scheduler(scheduler);
  if (const JsonValue priority = value["ioPriority"]) {
    process.io_priority.emplace();
    process.io_priority->io_class = priority.require("class").str();
    if (const JsonValue level = priority["priority"]) process.io_priority->priority = level.integer<int>(0, 7);
  }
  if (const JsonValue affinity = value["execCPUAffinity"]) {
    process.cpu_affinity.resize(2);
    read(affinity["initial"], process.cpu_affinity[0]);
    read(affinity["final"], process.cpu_affinity[1]);
  }
  return process;
}

sys::IdRange parse_id_mapping(JsonValue value) {
  sys::IdRange range;
  range.inside = value.require("containerID").integer<std::uint32_t>();
  range.outside = value.require("hostID").integer<std::uint32_t>();
  range.count = value.require("size").integer<std::uint32_t>(1);
  return range;
}

Mount parse_mount(JsonValue value) {
  Mount mount;
  mount.destination = value.require("destination").str();
  read(value["type"], mount.type);
  read(value["source"], mount.source);
  read(value["options"], mount.options);
  read_list(value["uidMappings"], mount.uid_mappings, parse_id_mapping);
  read_list(value["gidMappings"], mount.gid_mappings, parse_id_mapping);
  return mount;
}

Hook parse_hook(JsonValue value) {
  Hook hook;
  hook.path = value.require("path").str();
  read(value["args"], hook.args);
  read(value["env"], hook.env);
  if (const JsonValue timeout = value["timeout"]) hook.timeout = timeout.integer<int>(1);
  return hook;
}

Hooks parse_hooks(JsonValue value) {
  Hooks hooks;
  read_list(value["prestart"], hooks.prestart, parse_hook);
  read_list(value["createRuntime"], hooks.create_runtime, parse_hook);
  read_list(value["createContainer"], hooks.create_container, parse_hook);
  read_list(value["startContainer"], hooks.start_container, parse_hook);
  read_list(value["poststart"], hooks.poststart, parse_hook);
  read_list(value["poststop"], hooks.poststop, parse_hook);
  return hooks;
}

Namespace parse_namespace(JsonValue value) {
  Namespace entry;
  entry.type = value.require("type").str();
  read(value["path"], entry.path);
  return entry;
}

Device parse_device(JsonValue value) {
  Device device;
  const JsonValue type = value.require("type");
  const std::string& letter = type.str();
  if (letter.size() != 1 || std::string_view("cubp").find(letter) == std::string_view::npos)
    type.fail(fmt::format("{} is not one of c, u, b, p", quoted(letter)));
  device.type = letter[0];
  device.path = value.require("path").str();
  if (device.type != 'p') {
    device.major = value.require("major").integer<std::int64_t>(0, UINT32_MAX);
    device.minor = value.require("minor").integer<std::int64_t>(0, UINT32_MAX);
  }
  if (const JsonValue mode = value["fileMode"]) device.file_mode = mode.integer<std::uint32_t>(0, 0177777);
  if (const JsonValue id = value["uid"]) device.uid = parse_id(id);
  if (const JsonValue id = value["gid"]) device.gid = parse_id(id);
  return device;
}

DeviceRule parse_device_rule(JsonValue value) {
  DeviceRule rule;
  rule.allow = value.require("allow").boolean();
  read(value["type"], rule.type);
  read(value["major"], rule.major);
  read(value["minor"], rule.minor);
  read(value["access"], rule.access);
  return rule;
}

MemoryLimits parse_memory(JsonValue value) {
  MemoryLimits memory;
  read(value["limit"], memory.limit);
  read(value["reservation"], memory.reservation);
  read(value["swap"], memory.swap);
  read(value["kernel"], memory.kernel);
  read(value["kernelTCP"], memory.kernel_tcp);
  if (const JsonValue swappiness = value["swappiness"]) {
    // runc's users write -1 for "unset"
    if (swappiness.type() != JsonValue::Type::integer) memory.swappiness = swappiness.integer<std::uint64_t>();
  }
  read(value["disableOOMKiller"], memory.disable_oom_killer);
  read(value["useHierarchy"], memory.use_hierarchy);
  read(value["checkBeforeUpdate"], memory.check_before_update);
  return memory;
}

CpuLimits parse_cpu(JsonValue value) {
  CpuLimits cpu;
  read(value["shares"], cpu.shares);
  read(value["quota"], cpu.quota);
  read(value["burst"], cpu.burst);
  read(value["period"], cpu.period);
  read(value["realtimeRuntime"], cpu.realtime_runtime);
  read(value["realtimePeriod"], cpu.realtime_period);
  read(value["cpus"], cpu.cpus);
  read(value["mems"], cpu.mems);
  read(value["idle"], cpu.idle);
  return cpu;
}

ThrottleDevice parse_throttle(JsonValue value) {
  ThrottleDevice device;
  device.major = value.require("major").integer<std::int64_t>();
  device.minor = value.require("minor").integer<std::int64_t>();
  device.rate = value.require("rate").integer<std::uint64_t>();
  return device;
}

BlockIoLimits parse_block_io(JsonValue value) {
  BlockIoLimits io;
  read(value["weight"], io.weight);
  read(value["leafWeight"], io.leaf_weight);
  read_list(value["weightDevice"], io.weight_device, [](JsonValue item) {
    WeightDevice device;
    device.major = item.require("major").integer<std::int64_t>();
    device.minor = item.require("minor").integer<std::int64_t>();
    read(item["weight"], device.weight);
    read(item["leafWeight"], device.leaf_weight);
    return device;
  });
  read_list(value["throttleReadBpsDevice"], io.read_bps, parse_throttle);
  read_list(value["throttleWriteBpsDevice"], io.write_bps, parse_throttle);
  read_list(value["throttleReadIOPSDevice"], io.read_iops, parse_throttle);
  read_list(value["throttleWriteIOPSDevice"], io.write_iops, parse_throttle);
  return io;
}

Resources parse_resources_object(JsonValue value) {
  Resources resources;
  read_list(value["devices"], resources.devices, parse_device_rule);
  if (const JsonValue memory = value["memory"]) resources.memory = parse_memory(memory);
  if (const JsonValue cpu = value["cpu"]) resources.cpu = parse_cpu(cpu);
  if (const JsonValue pids = value["pids"]) resources.pids_limit = pids.require("limit").integer<std::int64_t>();
  if (const JsonValue io = value["blockIO"]) resources.block_io = parse_block_io(io);
  read_list(value["hugepageLimits"], resources.hugepages, [](JsonValue item) {
    return HugepageLimit{item.require("pageSize").str(), item.require("limit").integer<std::uint64_t>()};
  });
  if (const JsonValue network = value["network"]) {
    read(network["classID"], resources.network_class_id);
    read_list(network["priorities"], resources.network_priorities, [](JsonValue item) {
      return std::pair(item.require("name").str(), item.require("priority").integer<std::uint32_t>());
    });
  }
  const JsonValue rdma = value["rdma"];
  for (JsonValue device = rdma.first_member(); device.here(); device = device.next()) {
    auto& [handles, objects] = resources.rdma[device.key()];
    read(device["hcaHandles"], handles);
    read(device["hcaObjects"], objects);
  }
  read(value["unified"], resources.unified);
  return resources;
}

SeccompAction parse_action(JsonValue value) {
  if (const auto action = seccomp_action_from_name(value.str())) return *action;
  value.fail(fmt::format("unknown action {}", quoted(value.str())));
}

SeccompRule parse_seccomp_rule(JsonValue value) {
  SeccompRule rule;
  const JsonValue names = value.require("names");
  rule.names = names.strings();
  if (rule.names.empty()) names.fail("must name at least one system call");
  rule.action = parse_action(value.require("action"));
  read(value["errnoRet"], rule.errno_ret);
  read_list(value["args"], rule.args, [](JsonValue item) {
    SeccompArg arg;
    arg.index = item.require("index").integer<unsigned>(0, 5);
    arg.value = item.require("value").integer<std::uint64_t>();
    read(item["valueTwo"], arg.value_two);
    const JsonValue op = item.require("op");
    const auto known = seccomp_op_from_name(op.str());
    if (!known) op.fail(fmt::format("unknown operator {}", quoted(op.str())));
    arg.op = *known;
    return arg;
  });
  return rule;
}

Seccomp parse_seccomp_object(JsonValue value) {
  Seccomp seccomp;
  seccomp.default_action = parse_action(value.require("defaultAction"));
  read(value["defaultErrnoRet"], seccomp.default_errno_ret);
  read(value["architectures"], seccomp.architectures);
  read(value["flags"], seccomp.flags);
  read(value["listenerPath"], seccomp.listener_path);
  read(value["listenerMetadata"], seccomp.listener_metadata);
  read_list(value["syscalls"], seccomp.syscalls, parse_seccomp_rule);
  return seccomp;
}

Linux parse_linux(JsonValue value) {
  Linux settings;
  read_list(value["namespaces"], settings.namespaces, parse_namespace);
  read_list(value["uidMappings"], settings.uid_mappings, parse_id_mapping);
  read_list(value["gidMappings"], settings.gid_mappings, parse_id_mapping);
  const JsonValue offsets = value["timeOffsets"];
  for (JsonValue clock = offsets.first_member(); clock.here(); clock = clock.next()) {
    TimeOffset& offset = settings.time_offsets[clock.key()];
    read(clock["secs"], offset.secs);
    if (const JsonValue nanos = clock["nanosecs"]) offset.nanosecs = nanos.integer<std::uint32_t>(0, 999'999'999);
  }
  read_list(value["devices"], settings.devices, parse_device);
  const JsonValue interfaces = value["netDevices"];
  for (JsonValue interface = interfaces.first_member(); interface.here(); interface = interface.next()) {
    std::string& name = settings.net_devices[interface.key()];
    read(interface["name"], name);
    if (name.empty()) name = interface.key();
  }
  read(value["cgroupsPath"], settings.cgroups_path);
  if (const JsonValue resources = value["resources"]) settings.resources = parse_resources_object(resources);
  if (const JsonValue rdt = value["intelRdt"]) {
    settings.intel_rdt.emplace();
    read(rdt["closID"], settings.intel_rdt->clos_id);
    read(rdt["l3CacheSchema"], settings.intel_rdt->l3_cache_schema);
    read(rdt["memBwSchema"], settings.intel_rdt->mem_bw_schema);
    read(rdt["enableCMT"], settings.intel_rdt->enable_cmt);
    read(rdt["enableMBM"], settings.intel_rdt->enable_mbm);
  }
  read(value["sysctl"], settings.sysctl);
  if (const JsonValue seccomp = value["seccomp"]) settings.seccomp = parse_seccomp_object(seccomp);
  read(value["rootfsPropagation"], settings.rootfs_propagation);
  read(value["maskedPaths"], settings.masked_paths);
  read(value["readonlyPaths"], settings.readonly_paths);
  read(value["mountLabel"], settings.mount_label);
  if (const JsonValue personality = value["personality"]) {
    settings.personality.emplace();
    settings.personality->domain = personality.require("domain").str();
    read(personality["flags"], settings.personality->flags);
  }
  if (const JsonValue policy = value["memoryPolicy"]) {
    settings.memory_policy.emplace();
    settings.memory_policy->mode = policy.require("mode").str();
    read(policy["nodes"], settings.memory_policy->nodes);
    read(policy["flags"], settings.memory_policy->flags);
  }
  return settings;
}

}  // namespace

RuntimeConfig parse_runtime_config(std::string_view text) {
  const JsonDoc doc = JsonDoc::parse(text, kMaxConfigBytes);
  const JsonValue top = doc.root();
  RuntimeConfig config;
  config.oci_version = top.require("ociVersion").str();
  if (const JsonValue process = top["process"]) config.process = parse_process_object(process);
  if (const JsonValue root = top["root"]) {
    config.root.emplace();
    config.root->path = root.require("path").str();
    read(root["readonly"], config.root->readonly);
  }
  read(top["hostname"], config.hostname);
  read(top["domainname"], config.domainname);
  read_list(top["mounts"], config.mounts, parse_mount);
  if (const JsonValue hooks = top["hooks"]) config.hooks = parse_hooks(hooks);
  read(top["annotations"], config.annotations);
  if (const JsonValue settings = top["linux"]) config.linux_ = parse_linux(settings);
  return config;
}

Process parse_process(std::string_view text) {
  const JsonDoc doc = JsonDoc::parse(text, kMaxConfigBytes, "process");
  return parse_process_object(doc.root());
}

Resources parse_resources(std::string_view text) {
  const JsonDoc doc = JsonDoc::parse(text, kMaxConfigBytes, "linux.resources");
  return parse_resources_object(doc.root());
}

Seccomp parse_seccomp(std::string_view text) {
  const JsonDoc doc = JsonDoc::parse(text, kMaxConfigBytes, "linux.seccomp");
  return parse_seccomp_object(doc.root());
}

const char* seccomp_action_name(SeccompAction action) noexcept {
  for (const ActionName& entry : kActions)
    if (entry.action == action) return entry.name;
  return "";
}

std::optional<SeccompAction> seccomp_action_from_name(std::string_view name) noexcept {
  for (const ActionName& entry : kActions)
    if (name == entry.name) return entry.action;
  return std::nullopt;
}

const char* seccomp_op_name(SeccompOp op) noexcept {
  for (const OpName& entry : kOps)
    if (entry.op == op) return entry.name;
  return "";
}

std::optional<SeccompOp> seccomp_op_from_name(std::string_view name) noexcept {
  for (const OpName& entry : kOps)
    if (name == entry.name) return entry.op;
  return std::nullopt;
}

}  // namespace kelp::spec
