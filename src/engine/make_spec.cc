#include "engine/make_spec.h"

#include <fnmatch.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/text.h"
#include "spec/validate.h"
#include "sys/capability.h"
#include "sys/safe_path.h"

// One function per part of config.json, in the order of the document. What a user sees inside follows podman: mounts,
// masks, environment, limits; a difference is a decision and has its reason beside it.
namespace kelp::engine {

namespace {

using Kind = NamespaceChoice::Kind;
using store::Strings;

constexpr const char* kDefaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr const char* kInitInside = "/run/kelp-init";

constexpr std::array kMaskedPaths = {
    "/proc/acpi",    "/proc/kcore",      "/proc/keys",        "/proc/latency_stats", "/proc/sched_debug",
    "/proc/scsi",    "/proc/timer_list", "/proc/timer_stats", "/sys/dev/block",      "/sys/devices/virtual/powercap",
    "/sys/firmware", "/sys/fs/selinux"};
constexpr std::array kReadonlyPaths = {"/proc/asound", "/proc/bus", "/proc/fs",
                                       "/proc/irq",    "/proc/sys", "/proc/sysrq-trigger"};

struct Builder {
  const SpecInput& in;
  const store::ContainerRecord& record;
  const store::ContainerConfig& config;
  SecurityOptions security;
  spec::RuntimeConfig out;
  bool systemd = false;

  explicit Builder(const SpecInput& input)
      : in(input),
        record(*input.record),
        config(record.config),
        security(parse_security_options(config.security_opt)) {}

  void process();
  void environment();
  void capabilities();
  void rlimits();
  void namespaces();
  void mounts();
  void base_mounts(std::vector<spec::Mount>& list) const;
  void file_mounts(std::vector<spec::Mount>& list) const;
  void paths();
  void sysctls();
  void linux_rest();

  [[nodiscard]] bool own_network() const { return in.network.kind == Kind::fresh; }
  [[nodiscard]] std::string file(const char* name) const { return in.files + "/" + name; }
};

std::string key_of(std::string_view assignment) { return std::string(assignment.substr(0, assignment.find('='))); }

void set_variable(Strings& env, const std::string& key, const std::string& value) {
  for (std::string& entry : env)
    if (key_of(entry) == key) {
      entry = key + "=" + value;
      return;
    }
  env.push_back(key + "=" + value);
}

bool has_variable(const Strings& env, std::string_view key) {
  return std::any_of(env.begin(), env.end(), [&](const std::string& entry) { return key_of(entry) == key; });
}

}  // namespace

bool runs_systemd(const store::ContainerConfig& config, const Strings& command) {
  if (config.systemd == "always") return true;
  if (config.systemd != "true" || command.empty()) return false;
  const std::string& program = command.front();
  const std::string base = program.substr(program.rfind('/') + 1);
  return base == "systemd" || program == "/usr/sbin/init" || program == "/sbin/init" ||
         program == "/usr/local/sbin/init";
}

std::string effective_stop_signal(const store::ContainerRecord& record) {
  if (record.config.stop_signal && !record.config.stop_signal->empty()) return *record.config.stop_signal;
  if (!record.image.stop_signal.empty()) return record.image.stop_signal;
  // systemd takes SIGTERM for "start again"; this one means "halt". source: systemd(1), "Signals"
  try {
    if (runs_systemd(record.config, effective_command(record.image, record.config))) return "SIGRTMIN+3";
  } catch (const UsageError&) {  // no command: nothing to stop
  }
  return "SIGTERM";
}

namespace {
/// $NAME and ${NAME} stand for what the image has; what it does not have is empty, as in a shell.
std::string expand_variables(std::string_view text, const Strings& env) {
  const auto value_of = [&](std::string_view name) -> std::string {
    for (const std::string& entry : env)
      if (key_of(entry) == name) return entry.substr(name.size() + 1);
    return "";
  };
  const auto is_name = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; };
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const size_t closed = text.substr(i, 2) == "${" ? text.find('}', i) : std::string_view::npos;
    size_t end = i + 1;
    while (end < text.size() && is_name(text[end])) ++end;
    if (closed != std::string_view::npos) {
      out += value_of(text.substr(i + 2, closed - i - 2));
      i = closed + 1;
    } else if (text[i] == '$' && end > i + 1) {
      out += value_of(text.substr(i + 1, end - i - 1));
      i = end;
    } else {
      out += text[i++];
    }
  }
  return out;
}

bool keeps_groups(const store::ContainerConfig& config) {
  return config.group_add.size() == 1 && config.group_add.front() == "keep-groups";
}

void Builder::environment() {
  Strings& env = out.process->env;
  env.push_back("container=kelp");
  if (config.tty) env.push_back("TERM=xterm");
  if (!config.unset_env_all)
    for (const std::string& entry : record.image.env)
      set_variable(env, key_of(entry), entry.substr(std::min(entry.size(), key_of(entry).size() + 1)));
  if (config.unset_env_all) env.clear();
  if (!config.unset_env_all && !has_variable(env, "PATH")) env.insert(env.begin(), kDefaultPath);
  for (const std::string& key : config.unset_env)
    std::erase_if(env, [&](const std::string& entry) { return key_of(entry) == key; });
  // Only what there is can be merged with, each with what those before it made.
  for (const std::string& entry : config.env_merge) {
    const std::string key(key_of(entry));
    if (has_variable(env, key)) set_variable(env, key, expand_variables(entry.substr(key.size() + 1), env));
  }
  if (config.http_proxy)
    for (const auto& [key, value] : in.http_proxy_env)
      if (!has_variable(env, key)) env.push_back(key + "=" + value);
  if (systemd) set_variable(env, "container_uuid", record.id.substr(0, 32));
  for (const auto& [key, value] : config.env) set_variable(env, key, value);
  for (const auto& [key, value] : in.secret_env) set_variable(env, key, value);
  if (!in.notify_socket.empty()) set_variable(env, "NOTIFY_SOCKET", in.notify_socket);
  if (!in.hostname.empty() && !has_variable(env, "HOSTNAME")) env.push_back("HOSTNAME=" + in.hostname);
  if (!has_variable(env, "HOME")) env.push_back("HOME=" + in.user.home);
}

void Builder::capabilities() {
  const std::uint64_t wanted = wanted_capabilities(config, in.known_caps);
  std::uint64_t held = wanted;
  bool ambient = false;
  if (in.user.uid != 0) {
    // Another user than root holds only what was added by name, and keeps it over exec through the ambient set.
    store::ContainerConfig added;
    added.cap_drop = {"ALL"};
    added.cap_add = config.cap_add;
    held = config.cap_add.empty() ? 0 : wanted_capabilities(added, in.known_caps);
    ambient = held != 0;
  }
  const auto names = [](std::uint64_t bits) {
    Strings list;
    for (int bit = 0; bit < 64; ++bit)
      if ((bits >> static_cast<unsigned>(bit) & 1U) != 0) list.push_back(sys::capability_name(bit));
    std::sort(list.begin(), list.end());
    return list;
  };
  spec::Capabilities& caps = out.process->capabilities.emplace();
  caps.bounding = names(wanted);
  caps.effective = caps.permitted = names(held);
  if (ambient) caps.inheritable = caps.ambient = names(held);
}

void Builder::rlimits() {
  constexpr std::uint64_t kDefault = 1048576;
  bool from_host = false;
  for (const store::Ulimit& limit : config.ulimits) {
    if (limit.name == "host") {
      from_host = true;
      continue;
    }
    std::string type = "RLIMIT_";
    for (const char letter : limit.name) type += static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
    const auto value = [](std::int64_t number) { return number < 0 ? UINT64_MAX : static_cast<std::uint64_t>(number); };
    out.process->rlimits.push_back({type, value(limit.hard), value(limit.soft)});
  }
  if (from_host) return;
  for (const char* type : {"RLIMIT_NOFILE", "RLIMIT_NPROC"}) {
    const auto given = [&](const spec::Rlimit& limit) { return limit.type == type; };
    if (std::any_of(out.process->rlimits.begin(), out.process->rlimits.end(), given)) continue;
    std::uint64_t value = kDefault;  // never above the caller's hard limit: raising it needs root
    for (const spec::Rlimit& limit : in.host_rlimits)
      if (limit.type == type) value = std::min(value, limit.hard);
    out.process->rlimits.push_back({type, value, value});
  }
}

void Builder::process() {
  spec::Process& process = out.process.emplace();
  process.terminal = config.tty;
  process.cwd = !config.workdir.empty() ? config.workdir : record.image.workdir.empty() ? "/" : record.image.workdir;
  process.cwd = sys::clean_path("/" + process.cwd);  // "/made/.." must not need /made
  process.args = effective_command(record.image, config);
  systemd = runs_systemd(config, process.args);
  if (config.init) {
    const Strings wrapped = {kInitInside, "--"};
    process.args.insert(process.args.begin(), wrapped.begin(), wrapped.end());
  }
  process.user.uid = in.user.uid;
  process.user.gid = in.user.gid;
  process.user.additional_gids = in.user.groups;
  if (config.umask) process.user.umask = to_octal(*config.umask, 0777).value_or(0022);
  process.no_new_privileges = security.no_new_privileges;
  process.apparmor_profile = in.apparmor_profile;
  process.selinux_label = in.selinux_label;
  process.oom_score_adj = config.resources.oom_score_adj;
  environment();
  capabilities();
  rlimits();
}

void Builder::namespaces() {
  const auto add = [&](const char* type, const NamespaceChoice& choice) {
    if (choice.kind == Kind::host) return;
    out.linux_.namespaces.push_back({type, choice.kind == Kind::join ? choice.path : ""});
  };
  if (!in.user_namespace.empty()) {
    out.linux_.namespaces.push_back({"user", in.user_namespace});
  } else if (!record.uid_map.empty()) {
    out.linux_.namespaces.push_back({"user", ""});
    out.linux_.uid_mappings = record.uid_map;
    out.linux_.gid_mappings = record.gid_map;
  }
  out.linux_.namespaces.push_back({"mount", ""});
  add("network", in.network);
  add("pid", in.pid);
  add("ipc", in.ipc);
  add("uts", in.uts);
  add("cgroup", in.cgroup);
}

void Builder::base_mounts(std::vector<spec::Mount>& list) const {
  const auto add = [&](std::string target, std::string type, std::string source, Strings options) {
    list.push_back({std::move(target), std::move(type), std::move(source), std::move(options), {}, {}});
  };
  const std::string shm_size = std::to_string(config.resources.shm_size.value_or(64 << 20));
  const std::string write = config.privileged ? "rw" : "ro";
  if (in.pid.kind == Kind::host) {
    add("/proc", "bind", "/proc", {"rbind", "nosuid", "noexec", "nodev"});
  } else {
    Strings options = {"nosuid", "noexec", "nodev"};
    options.insert(options.end(), security.proc_options.begin(), security.proc_options.end());
    add("/proc", "proc", "proc", options);
  }
  const bool dev_readonly = config.read_only && !config.read_only_tmpfs;
  add("/dev", "tmpfs", "tmpfs",
      {"nosuid", "noexec", "strictatime", "mode=755", "size=65536k", dev_readonly ? "ro" : "rw"});
  // A sysfs of our own shows the network namespace it was mounted in, and needs to own it.
  if (in.network.kind == Kind::host)
    add("/sys", "bind", "/sys", {"rbind", "rprivate", "nosuid", "noexec", "nodev", write});
  else
    add("/sys", "sysfs", "sysfs", {"nosuid", "noexec", "nodev", write});
  Strings pts = {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"};
  std::uint32_t tty_group = 0;
  const bool mapped = record.gid_map.empty() ? !in.single_id : sys::map_out(record.gid_map, 5, tty_group);
  if (mapped) pts.push_back("gid=5");  // EINVAL where 5 is not mapped
  add("/dev/pts", "devpts", "devpts", pts);
  if (in.ipc.kind == Kind::host) {
    if (in.host_has_mqueue) add("/dev/mqueue", "bind", "/dev/mqueue", {"rbind", "nosuid", "noexec", "nodev"});
    add("/dev/shm", "bind", "/dev/shm", {"rbind", "nosuid", "noexec", "nodev"});
  } else {
    add("/dev/mqueue", "mqueue", "mqueue", {"nosuid", "noexec", "nodev"});
    if (config.ipc == "none") {
      // asked for: no shared memory at all
    } else if (!in.shared_shm.empty()) {
      add("/dev/shm", "bind", in.shared_shm, {"rbind", "rprivate", "nosuid", "noexec", "nodev"});
    } else {
      Strings shm = {"nosuid", "noexec", "nodev", "mode=1777", "size=" + shm_size};
      if (dev_readonly) shm.push_back("ro");
      add("/dev/shm", "tmpfs", "shm", shm);
    }
  }
  const bool cgroup_writable = config.privileged || systemd;
  add("/sys/fs/cgroup", "cgroup", "cgroup",
      {"nosuid", "noexec", "nodev", "relatime", cgroup_writable ? "rw" : "ro", "rprivate"});
}

void Builder::file_mounts(std::vector<spec::Mount>& list) const {
  const auto bind = [&](const char* target, const std::string& source, bool writable) {
    Strings options = {"bind", "rprivate"};
    if (!writable) options.push_back("ro");
    list.push_back({target, "bind", source, options, {}, {}});
  };
  const bool writable = !config.read_only;
  if (in.has_resolv_conf) bind("/etc/resolv.conf", file("resolv.conf"), writable);
  if (in.has_hosts) bind("/etc/hosts", file("hosts"), writable);
  if (in.has_hostname) bind("/etc/hostname", file("hostname"), writable);
  if (in.has_passwd) bind("/etc/passwd", file("passwd"), writable);
  if (in.has_group) bind("/etc/group", file("group"), writable);
  if (!in.timezone_file.empty()) bind("/etc/localtime", in.timezone_file, false);
  bind("/run/.containerenv", file("containerenv"), writable);
  if (in.apt_as_root) bind("/etc/apt/apt.conf.d/00kelp-single-id", file("apt.conf"), false);
  if (config.init) bind(kInitInside, in.init_program, false);
  const auto scratch = [&](const char* target) {
    list.push_back({target, "tmpfs", "tmpfs", {"rw", "rprivate", "nosuid", "nodev", "tmpcopyup"}, {}, {}});
  };
  if (config.read_only && config.read_only_tmpfs)
    for (const char* target : {"/run", "/tmp", "/var/tmp"}) scratch(target);
  if (systemd)
    for (const char* target : {"/run", "/run/lock", "/tmp", "/var/log/journal"}) scratch(target);
}

size_t depth(const std::string& path) { return static_cast<size_t>(std::count(path.begin(), path.end(), '/')); }

void Builder::mounts() {
  std::vector<spec::Mount> list;
  base_mounts(list);
  file_mounts(list);
  for (const SpecInput::BoundDevice& device : in.devices) {
    Strings options = {"bind", "rprivate", "nosuid", "noexec"};
    if (device.access.find('w') == std::string::npos) options.push_back("ro");
    list.push_back({device.target, "bind", device.source, options, {}, {}});
  }
  // What the user names takes the place of ours.
  for (const spec::Mount& mount : in.mounts) {
    std::erase_if(list, [&](const spec::Mount& ours) {
      return sys::clean_path(ours.destination) == sys::clean_path(mount.destination);
    });
    list.push_back(mount);
  }
  // Twice the same of ours (systemd in a read-only container): the first stays.
  for (auto it = list.begin(); it != list.end();)
    it = std::any_of(list.begin(), it, [&](const spec::Mount& other) { return other.destination == it->destination; })
             ? list.erase(it)
             : it + 1;
  // Parents first, otherwise in the order given.
  std::stable_sort(list.begin(), list.end(), [](const spec::Mount& a, const spec::Mount& b) {
    return depth(sys::clean_path(a.destination)) < depth(sys::clean_path(b.destination));
  });
  out.mounts = std::move(list);
  for (const spec::Mount& mount : out.mounts)
    for (const std::string& option : mount.options)
      if (option == "shared" || option == "rshared" || option == "slave" || option == "rslave")
        out.linux_.rootfs_propagation = "rslave";  // a private root would cut them off
}

void Builder::paths() {
  const auto unmasked = [&](const char* path) {
    return std::any_of(security.unmask.begin(), security.unmask.end(), [&](const std::string& pattern) {
      return pattern == "ALL" || ::fnmatch(pattern.c_str(), path, 0) == 0;
    });
  };
  if (!config.privileged) {
    // With the host's /proc bound, masks and read-only binds on it would need mounts over the host's tree: they are
    // made in the container's own mount namespace, so they apply all the same.
    for (const char* path : kMaskedPaths)
      if (!unmasked(path)) out.linux_.masked_paths.emplace_back(path);
    for (const char* path : kReadonlyPaths)
      if (!unmasked(path)) out.linux_.readonly_paths.emplace_back(path);
  }
  for (const std::string& path : security.mask) out.linux_.masked_paths.push_back(path);
}

void Builder::sysctls() {
  store::StringMap& sysctl = out.linux_.sysctl;
  if (own_network()) {
    // EINVAL for a group that the container does not have.
    std::uint32_t outside = 0;
    const bool has_root = record.gid_map.empty() || sys::map_out(record.gid_map, 0, outside);
    const std::uint32_t group = has_root ? 0 : record.gid_map.front().inside;
    sysctl["net.ipv4.ping_group_range"] = fmt::format("{} {}", group, group);
    sysctl["net.ipv4.ip_unprivileged_port_start"] = "0";  // the port range of one's own network is nobody else's
    // Nobody asked for them: where the /proc is the outer container's, they are done without.
    out.annotations["io.kelp.wished-sysctls"] = "net.ipv4.ping_group_range net.ipv4.ip_unprivileged_port_start";
  }
  for (const auto& [key, value] : config.sysctl) {
    out.annotations.erase("io.kelp.wished-sysctls");
    std::string_view group;
    if (!spec::is_namespaced_sysctl(key, &group))
      throw_usage("sysctl {} is not one of a namespace: it would change the host", quoted(key));
    const NamespaceChoice& choice = group == "ipc" ? in.ipc : group == "uts" ? in.uts : in.network;
    if (choice.kind == Kind::host)
      throw_usage("sysctl {} cannot be set while the container uses the host's {} namespace", quoted(key), group);
    sysctl[key] = value;
  }
}

void Builder::linux_rest() {
  out.linux_.cgroups_path = in.cgroup_path;
  out.linux_.mount_label = in.mount_label;
  out.linux_.resources = make_resources(config, !in.cgroup_path.empty(), in.can_limit_pids);
  std::optional<spec::Seccomp> filter = in.seccomp;
  if (in.single_id) filter = with_faked_ids(std::move(filter));
  out.linux_.seccomp = std::move(filter);
  out.annotations.insert(config.annotations.begin(), config.annotations.end());
  out.annotations.emplace("io.container.manager", "kelp");
  out.annotations.emplace("io.kelp.shared-proc", "allowed");
  if (keeps_groups(config)) out.annotations["run.oci.keep_original_groups"] = "1";
  if (!config.hostname) out.annotations.emplace("io.kelp.outer-hostname", "allowed");
  if (!record.image.stop_signal.empty())
    out.annotations.emplace("org.opencontainers.image.stopSignal", record.image.stop_signal);
}

}  // namespace

Strings effective_command(const store::ImageDefaults& image, const store::ContainerConfig& config) {
  Strings command;
  if (config.entrypoint) {
    command = *config.entrypoint;  // given, also as "none": the image's own arguments go with its own entrypoint
    command.insert(command.end(), config.command.begin(), config.command.end());
  } else {
    command = image.entrypoint;
    const Strings& rest = config.command.empty() ? image.cmd : config.command;
    command.insert(command.end(), rest.begin(), rest.end());
  }
  // An empty first word stands: the start finds no such program, as podman's does.
  if (command.empty()) throw_usage("no command or entrypoint provided, and no CMD or ENTRYPOINT from image");
  return command;
}

spec::RuntimeConfig make_runtime_config(const SpecInput& input) {
  Builder builder(input);
  spec::RuntimeConfig& out = builder.out;
  out.oci_version = "1.0.2";  // nothing newer is used here, and crun before 1.9 takes no other
  builder.process();
  out.root = spec::Root{input.rootfs, builder.config.read_only};
  if (input.uts.kind == Kind::fresh) out.hostname = input.hostname;
  builder.mounts();
  builder.namespaces();
  builder.paths();
  builder.sysctls();
  builder.linux_rest();
  return std::move(out);
}

std::string make_spec(const SpecInput& input) { return spec::print_runtime_config(make_runtime_config(input)); }

}  // namespace kelp::engine
