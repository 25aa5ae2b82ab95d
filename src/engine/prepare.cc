#include "engine/prepare.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "base/error.h"
#include "base/log.h"
#include "base/program_path.h"
#include "base/text.h"
#include "cgroup/cgroupfs.h"
#include "cgroup/limits.h"
#include "engine/cdi.h"
#include "engine/devices.h"
#include "engine/host.h"
#include "engine/images.h"
#include "engine/make_spec.h"
#include "engine/monitor_client.h"
#include "engine/oci_hooks.h"
#include "engine/session.h"
#include "engine/user_namespace.h"
#include "engine/users.h"
#include "spec/seccomp_profile.h"
#include "store/containers.h"
#include "store/images.h"
#include "store/layers.h"
#include "sys/capability.h"
#include "sys/lock.h"
#include "sys/mount_api.h"
#include "sys/namespaces.h"
#include "sys/safe_path.h"
#include "sys/xattr_tree.h"

namespace kelp::engine {

namespace {

using Kind = NamespaceChoice::Kind;
using store::Strings;

/// A running container that another one joins; its init's namespaces are named by pid.
struct Joined {
  store::ContainerRecord record;
  int pid = 0;
};

Joined running(Context& context, const std::string& name, const char* what) {
  Joined joined{store::get(context.layout, name)};
  const store::ContainerStatus status = store::status(context.layout, joined.record);
  if (!status.run || status.run->pid == 0 ||
      (status.status != store::Status::running && status.status != store::Status::paused))
    throw_error("cannot join the {} namespace of container {}: it is not running", what, joined.record.name);
  joined.pid = status.run->pid;
  return joined;
}

NamespaceChoice choose(Context& context, const std::string& mode, const char* option, const char* kernel_name,
                       StartPlan& plan) {
  if (mode.empty() || mode == "private") return {};
  const bool ipc = std::string_view(option) == "--ipc";
  if (ipc && (mode == "shareable" || mode == "none")) return {};
  if (mode == "host") return {Kind::host, ""};
  if (starts_with(mode, "ns:")) return {Kind::join, mode.substr(3)};
  if (starts_with(mode, "container:")) {
    const Joined other = running(context, mode.substr(10), kernel_name);
    if (ipc && (other.record.config.ipc == "private" || other.record.config.ipc == "none"))
      throw_error("the ipc namespace of container {} is {}, not shareable", other.record.name, other.record.config.ipc);
    if (ipc) plan.shm_of = other.pid;
    plan.joins.push_back(other.record.id);
    return {Kind::join, fmt::format("/proc/{}/ns/{}", other.pid, kernel_name)};
  }
  throw_usage("{} {}: host, private{}, container:NAME and ns:PATH are possible", option, quoted(mode),
              ipc ? ", shareable, none" : "");
}

/// A file of the bundle. No rename: nobody reads it before the start, and the container's lock is held.
void write_plain(const std::string& path, std::string_view text) {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;
  Fd fd(::open(path.c_str(), kFlags, 0644));
  // An earlier start has given it to the container's root, a subordinate id.
  if (!fd && errno == EACCES && ::unlink(path.c_str()) == 0) fd = Fd(::open(path.c_str(), kFlags, 0644));
  if (!fd) throw_errno("create {}", path);
  sys::write_all(fd.get(), text, path);
  ::fchmod(fd.get(), 0644);
}

std::vector<spec::Rlimit> caller_limits() {
  std::vector<spec::Rlimit> limits;
  for (const auto& [resource, name] : {std::pair{RLIMIT_NOFILE, "RLIMIT_NOFILE"}, {RLIMIT_NPROC, "RLIMIT_NPROC"}}) {
    rlimit value{};
    if (::getrlimit(resource, &value) == 0) limits.push_back({name, value.rlim_max, value.rlim_cur});
  }
  return limits;
}

store::StringMap proxy_variables() {
  store::StringMap found;
  for (const char* name :
       {"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY"})
    if (const char* value = std::getenv(name)) found[name] = value;
  return found;
}

std::string timezone_file(const std::string& zone) {
  if (zone.empty()) return "";
  const std::string path = zone == "local" ? "/etc/localtime" : "/usr/share/zoneinfo/" + zone;
  if (zone.find("..") != std::string::npos || ::access(path.c_str(), R_OK) < 0)
    throw_usage("--tz {}: there is no time zone of that name on the host", quoted(zone));
  char* real = ::realpath(path.c_str(), nullptr);
  std::string found = real == nullptr ? path : real;
  std::free(real);
  return found;
}

std::optional<spec::Seccomp> seccomp_filter(const store::ContainerConfig& config, const SecurityOptions& security,
                                            std::uint64_t known_caps) {
  if (security.seccomp == "unconfined" || (config.privileged && security.seccomp.empty())) return std::nullopt;
  const spec::ProfileTarget target{wanted_capabilities(config, known_caps), std::string(spec::native_arch())};
  if (security.seccomp.empty() || security.seccomp == "default") return spec::default_seccomp_profile(target);
  if (security.seccomp == "hardened") return spec::hardened_seccomp_profile(target);
  const auto text = sys::read_small_file(security.seccomp, 16U << 20U);
  if (!text) throw_usage("opening seccomp profile {}: no such file or directory", security.seccomp);
  try {
    return spec::load_docker_profile(*text, target);
  } catch (Error& error) {
    error.add_context("seccomp profile " + security.seccomp);
    throw;
  }
}

std::string init_program(const store::ContainerConfig& config) {
  if (!config.init) return "";
  if (config.init_path.empty()) return own_program("kelp-init");
  if (::access(config.init_path.c_str(), X_OK) < 0) throw_errno("--init-path {}", config.init_path);
  return config.init_path;
}

/// --passwd-entry and --group-entry name what podman puts in for its names: "$UID" and the like.
std::string filled(std::string line, std::initializer_list<std::pair<std::string_view, std::string>> values) {
  for (const auto& [name, value] : values)
    for (size_t at = line.find(name); at != std::string::npos; at = line.find(name, at + value.size()))
      line.replace(at, name.size(), value);
  return line;
}

/// passwd and group get a line for a user that the image does not know, so that `id`, `ssh` and shells work.
void add_account_files(Context& context, const store::ContainerRecord& record, const LayeredRoot& root, StartPlan& plan,
                       SpecInput& input) {
  const store::ContainerConfig& config = record.config;
  if (!config.passwd) return;
  const bool keep_id = starts_with(config.userns, "keep-id");
  std::string passwd = root.read("/etc/passwd").value_or("");
  std::string group = root.read("/etc/group").value_or("");
  const std::string workdir = !config.workdir.empty() ? config.workdir : record.image.workdir;
  const auto add_line = [](std::string& text, const std::string& line) {
    if (!text.empty() && text.back() != '\n') text += '\n';
    text += line + "\n";
  };
  bool passwd_changed = false;
  const std::string uid = std::to_string(input.user.uid), gid = std::to_string(input.user.gid);
  const std::string user = keep_id ? context.host().user_name : uid, full = keep_id ? user : "container user";
  if (!input.user.in_passwd && input.user.uid != 0 && (keep_id || !passwd.empty()) && config.passwd_entries.empty()) {
    input.user.home = workdir.empty() ? "/" : workdir;
    add_line(passwd, fmt::format("{}:*:{}:{}:{}:{}:/bin/sh", user, uid, gid, full, input.user.home));
    passwd_changed = true;
  }
  for (const std::string& line : config.passwd_entries) {
    add_line(passwd, filled(line, {{"$USERNAME", user},
                                   {"$UID", uid},
                                   {"$GID", gid},
                                   {"$NAME", full},
                                   {"$HOME", workdir.empty() ? "/" : workdir}}));
    passwd_changed = true;
  }
  bool group_changed = false;
  const std::string of_group = keep_id ? user : gid;
  const std::string member = keep_id ? user : !input.user.name.empty() ? input.user.name : uid;
  if (input.user.gid != 0 && (keep_id || !group.empty()) && config.group_entries.empty() &&
      group.find(fmt::format(":{}:", gid)) == std::string::npos) {
    add_line(group, fmt::format("{}:x:{}:{}", of_group, gid, member));
    group_changed = true;
  }
  for (const std::string& line : config.group_entries) {
    add_line(group, filled(line, {{"$GROUPNAME", of_group}, {"$GID", gid}, {"$USERLIST", member}}));
    group_changed = true;
  }
  if (passwd_changed) plan.files.push_back({"passwd", std::move(passwd)});
  if (group_changed) plan.files.push_back({"group", std::move(group)});
  input.has_passwd = passwd_changed;
  input.has_group = group_changed;
}

/// --hosts-file: what stands before our own lines.
std::string base_hosts(const store::ContainerConfig& config, const LayeredRoot& root) {
  if (config.hosts_file.empty() || config.hosts_file == "none") return "";
  std::string text;
  if (config.hosts_file == "image") {
    text = root.read("/etc/hosts").value_or("");
  } else {
    auto read = sys::read_small_file(config.hosts_file);
    if (!read) throw_usage("--hosts-file: there is no file {}", quoted(config.hosts_file));
    text = std::move(*read);
  }
  if (!text.empty() && text.back() != '\n') text += '\n';
  return text;
}

void choose_namespaces(Context& context, const store::ContainerRecord& record, StartPlan& plan, SpecInput& input) {
  const store::ContainerConfig& config = record.config;
  input.pid = choose(context, config.pid, "--pid", "pid", plan);
  input.ipc = choose(context, config.ipc, "--ipc", "ipc", plan);
  if (plan.shm_of != 0) input.shared_shm = plan.bundle + "/shm";
  input.uts = choose(context, config.uts, "--uts", "uts", plan);
  input.cgroup = choose(context, config.cgroupns, "--cgroupns", "cgroup", plan);
  if (plan.network.mode.kind == NetworkMode::Kind::host)
    input.network.kind = Kind::host;
  else if (!plan.network.netns_path.empty())
    input.network = {Kind::join, plan.network.netns_path};
  plan.new_network = input.network.kind == Kind::fresh;
  if (!plan.network.join_container.empty()) plan.joins.push_back(plan.network.join_container);
  if (starts_with(config.userns, "container:")) {
    const Joined other = running(context, config.userns.substr(10), "user");
    plan.joins.push_back(other.record.id);
    if (!record.uid_map.empty()) input.user_namespace = fmt::format("/proc/{}/ns/user", other.pid);
  }
  const bool host_name =
      input.uts.kind == Kind::host || (plan.network.mode.kind == NetworkMode::Kind::host && !config.hostname);
  input.hostname = host_name ? context.host().host_name.get() : default_hostname(record);
  if (input.uts.kind == Kind::host && config.hostname)
    throw_usage("--hostname cannot be set while the container uses the host's uts namespace");
  if (starts_with(config.uts, "container:") && config.hostname)
    throw_usage("--hostname cannot be set while the container uses the uts namespace of another one");
}

/// A layer may have become doubtful since (power cut, another kernel's boot): it is made again from its blob.
void make_layers_ready(Context& context, const store::ContainerRecord& record, const store::IdMapping& map) {
  if (store::missing_layers(context.layout, record.layer_chain, map).empty()) return;
  const auto image = store::image_by_manifest(context.layout, record.image_digest);
  if (!image) {
    Error error(fmt::format("the image {} of container {} is gone, and so are its unpacked layers", record.image_name,
                            record.name));
    error.with_hint("kelp pull " + record.image_name);
    throw error;
  }
  ensure_layers(context, *image, map);
}

void add_ids(const store::ContainerRecord& record, StartPlan& plan, const ResolvedUser& user) {
  plan.user_uid = user.uid;
  plan.user_gid = user.gid;
  if (record.map_key == "single") {
    plan.user_uid = plan.user_gid = 0;
    return;
  }
  if (record.uid_map.empty()) return;
  const auto outside = [](const sys::IdRanges& map, std::uint32_t id, const char* what) {
    std::uint32_t found = 0;
    if (!sys::map_out(map, id, found)) throw_usage("{} {} is not mapped in the container", what, id);
    return found;
  };
  plan.user_uid = outside(record.uid_map, user.uid, "user");
  plan.user_gid = outside(record.gid_map, user.gid, "group");
  sys::map_out(record.uid_map, 0, plan.root_uid);
  sys::map_out(record.gid_map, 0, plan.root_gid);
}

std::uint32_t id_in_s(const sys::IdRanges& map, std::uint32_t id, const char* what) {
  std::uint32_t found = id;
  if (!map.empty() && !sys::map_out(map, id, found)) throw_usage("{} {} is not mapped in the container", what, id);
  return found;
}

/// --secret: files are bound, values go into the environment. Both were copied when the container was made.
void plan_secrets(const store::ContainerRecord& record, StartPlan& plan, SpecInput& input) {
  for (const store::SecretRequest& secret : record.config.secrets) {
    const std::string path = plan.bundle + "/secrets/" + secret.name;
    if (secret.env) {
      const auto value = sys::read_small_file(path);
      if (!value) throw_error("the secret {} of container {} is gone", secret.name, record.name);
      input.secret_env[secret.target] = *value;
      continue;
    }
    if (record.map_key == "single")
      plan.secrets.push_back({path, 0, 0, secret.mode});
    else
      plan.secrets.push_back({path, id_in_s(record.uid_map, secret.uid, "secret: user"),
                              id_in_s(record.gid_map, secret.gid, "secret: group"), secret.mode});
    input.mounts.push_back(
        {secret.target, "bind", path, {"bind", "rprivate", "ro", "nosuid", "nodev", "noexec"}, {}, {}});
  }
}

/// Where the container says READY=1, see monitor/notify.h.
void plan_notify(Context& context, const store::ContainerRecord& record, SpecInput& input) {
  const char* socket = std::getenv("NOTIFY_SOCKET");
  if (record.config.sdnotify != "container" || socket == nullptr || *socket == '\0') return;
  input.mounts.push_back({"/run/notify",
                          "bind",
                          context.layout.run_of(record.id) + "/notify",
                          {"bind", "rprivate", "nosuid", "nodev", "noexec"},
                          {},
                          {}});
  input.notify_socket = "/run/notify/notify.sock";
}

/// --security-opt label= and the mounts with :z and :Z, where SELinux is on.
void plan_selinux(Context& context, const SecurityOptions& security, StartPlan& plan, SpecInput& input) {
  if ((security.labels.empty() && plan.relabels.empty()) || !context.host().security.get().selinux) return;
  const SelinuxLabels labels = selinux_labels(security.labels, selinux_level(input.record->id));
  plan.file_label = labels.file;
  plan.shared_file_label = labels.shared_file;
  if (security.labels.empty() || security.label_disable) return;
  input.selinux_label = labels.process;
  input.mount_label = labels.file;
}

/// Nodes and mounts of devices. A mount that the user names stands in the place of a driver's.
CdiEdits plan_devices(Context& context, const store::ContainerConfig& config, SpecInput& input) {
  input.devices = find_devices(config);
  CdiEdits edits = find_cdi_edits(context.global.cdi_spec_dirs, config.devices);
  for (const auto& device : edits.devices) {
    const auto same = [&](const auto& other) { return other.target == device.target; };
    if (std::none_of(input.devices.begin(), input.devices.end(), same)) input.devices.push_back(device);
  }
  for (const auto& mount : edits.mounts) {
    const auto same = [&](const auto& other) { return sys::clean_path(other.destination) == mount.destination; };
    if (std::none_of(input.mounts.begin(), input.mounts.end(), same)) input.mounts.push_back(mount);
  }
  return edits;
}

/// --hooks-dir, and what else the drivers of devices want.
void plan_hooks(Context& context, const store::ContainerConfig& config, const CdiEdits& cdi, spec::RuntimeConfig& made,
                StartPlan& plan) {
  const auto is_bind = [](const store::MountRequest& mount) { return mount.type == "bind"; };
  if (!context.global.hooks_dirs.empty())
    made.hooks =
        read_hooks(context.global.hooks_dirs, made, std::any_of(config.mounts.begin(), config.mounts.end(), is_bind));
  apply_cdi_edits(cdi, made);
  plan.poststop_hooks = !made.hooks.poststop.empty();
}

/// Shared memory of another container as a mount in this session: cloned in its mount namespace, attached in ours.
void share_shm(const StartPlan& plan) {
  const std::string target = plan.bundle + "/shm";
  if (::mkdir(target.c_str(), 0700) < 0 && errno != EEXIST) throw_errno("make {}", target);
  const Fd ours = sys::open_ns(0, "mnt");
  sys::join(sys::open_ns(plan.shm_of, "mnt").get(), CLONE_NEWNS);
  std::optional<sys::MountFd> shm;
  try {
    shm.emplace(sys::open_tree_clone(AT_FDCWD, "/dev/shm", false));
  } catch (...) {
    sys::join(ours.get(), CLONE_NEWNS);
    throw;
  }
  sys::join(ours.get(), CLONE_NEWNS);
  const Fd directory(::open(target.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory) throw_errno("open {}", target);
  sys::move_mount(*shm, directory.get());
}

}  // namespace

void check_seccomp_profile(const store::ContainerConfig& config) {
  const SecurityOptions security = parse_security_options(config.security_opt);
  if (security.seccomp.empty() || security.seccomp == "default" || security.seccomp == "hardened") return;
  (void)seccomp_filter(config, security, sys::known_caps());
}

Strings root_directories(Context& context, const store::ContainerRecord& record, bool with_upper) {
  if (!record.config.rootfs.empty()) return {record.config.rootfs};
  Strings directories;
  if (with_upper) directories.push_back(context.layout.container(record.id) + "/upper");
  const Strings lowers = store::overlay_lowers(context.layout, record.layer_chain, layers_map(record));
  directories.insert(directories.end(), lowers.begin(), lowers.end());
  return directories;
}

std::string effective_user(const store::ContainerRecord& record) {
  if (!record.config.user.empty()) return record.config.user;
  if (starts_with(record.config.userns, "keep-id") && !record.uid_map.empty()) {
    std::uint32_t uid = 0;
    std::uint32_t gid = 0;
    sys::map_in(record.uid_map, 0, uid);
    sys::map_in(record.gid_map, 0, gid);
    return fmt::format("{}:{}", uid, gid);
  }
  return record.image.user;
}

void check_workdir(const store::ContainerRecord& record, const LayeredRoot& root) {
  const std::string workdir = sys::clean_path("/" + record.config.workdir);
  if (!record.config.workdir.empty() && record.config.workdir.front() != '/')
    throw Error(fmt::format("workdir {} is not an absolute path", quoted(record.config.workdir)), kExitCannotInvoke);
  if (record.config.workdir.empty() || workdir == "/" || workdir == sys::clean_path("/" + record.image.workdir)) return;
  for (const store::MountRequest& mount : record.config.mounts)
    if (starts_with(workdir + "/", sys::clean_path(mount.target) + "/")) return;
  const auto entry = root.find(workdir);
  if (entry && entry->directory) return;
  for (const char* made : {"/proc", "/sys", "/dev"})
    if (starts_with(workdir, made)) return;
  throw Error(
      fmt::format("workdir {} does not exist in the container{}", quoted(workdir), entry ? " as a directory" : ""),
      kExitCannotInvoke);
}

void check_limits(Context& context, const store::ContainerConfig& config) {
  const std::vector<WantedLimit> wanted = wanted_limits(config.resources);
  if (wanted.empty()) return;
  if (config.resources.oom_kill_disable)
    throw Error("--oom-kill-disable: cgroup v2 cannot switch the OOM killer off for a group")
        .with_hint("--cgroup-conf memory.high=SIZE slows processes down instead of killing them");
  if (config.resources.memory_swappiness.value_or(-1) >= 0)
    throw Error("--memory-swappiness: cgroup v2 has no swappiness of a group")
        .with_hint("--memory-swap limits swap; the host's own is `sysctl vm.swappiness`");
  const std::string& first = wanted.front().option;
  if (config.cgroups == "disabled") throw_usage("{} and --cgroups=disabled exclude each other", first);
  const cgroup::Place& place = context.host().cgroup.get().place;
  if (place.manager == cgroup::Manager::none)
    throw Error(fmt::format("{} cannot be enforced: {}", first, place.reason))
        .with_hint(place.hint.empty() ? "`kelp doctor` says how to get a control group" : place.hint);
  if (!config.cgroup_parent.empty()) return;  // another place, which the start looks at
  for (const auto& [option, controller] : wanted) {
    if (controller.empty() ||
        std::find(place.controllers.begin(), place.controllers.end(), controller) != place.controllers.end())
      continue;
    const auto missing = cgroup::explain_missing(controller, option, place.parent, cgroup::lack_of(controller));
    throw Error(missing.text).with_hint(missing.hint);
  }
}

StartPlan prepare_start(Context& context, const store::ContainerRecord& record, const GroupPlan& group) {
  StartPlan plan;
  SpecInput input;
  input.record = &record;
  const store::ContainerConfig& config = record.config;
  const SecurityOptions security = parse_security_options(config.security_opt);
  plan.bundle = context.layout.container(record.id);
  plan.rootfs = config.rootfs;
  plan.volatile_overlay = config.remove;
  plan.cgroup_path = group.leaf;
  plan.tty = config.tty;
  plan.labels = record.image.labels;
  for (const auto& [key, value] : config.labels) plan.labels[key] = value;

  if (config.rootfs.empty()) {
    const store::IdMapping map = layers_map(record);
    make_layers_ready(context, record, map);
    plan.lowers = store::overlay_lowers(context.layout, record.layer_chain, map);
  }
  const LayeredRoot root(root_directories(context, record, true));
  const bool keep_groups = config.group_add.size() == 1 && config.group_add.front() == "keep-groups";
  input.user = resolve_user(effective_user(record), keep_groups ? Strings{} : config.group_add,
                            root.read("/etc/passwd").value_or(""), root.read("/etc/group").value_or(""));
  check_workdir(record, root);
  add_ids(record, plan, input.user);

  plan.network = make_network_plan(context, record);
  plan.warnings = plan.network.warnings;
  choose_namespaces(context, record, plan, input);
  MountPlan mounts = plan_mounts(context, record);
  plan.copy_ups = std::move(mounts.copy_ups);
  plan.overlays = std::move(mounts.overlays);
  plan.subpaths = std::move(mounts.subpaths);
  plan.chowns = std::move(mounts.chowns);
  plan.relabels = std::move(mounts.relabels);
  input.mounts = std::move(mounts.mounts);
  const CdiEdits cdi = plan_devices(context, config, input);
  plan_secrets(record, plan, input);
  plan_notify(context, record, input);

  input.host_network = plan.network.mode.kind == NetworkMode::Kind::host;
  input.host_has_mqueue = ::access("/dev/mqueue", F_OK) == 0;
  input.single_id = plan.single_id = record.map_key == "single";
  if (plan.single_id)
    plan.warnings.push_back(
        fmt::format("{}: all users of the container are one; kelp doctor tells more", context.host().userns.get().why));
  if (input.single_id) {
    // There is one id: whoever the process was to be, it is that one (see with_faked_ids).
    input.user.uid = input.user.gid = 0;
    input.user.groups.clear();
    if (!record.uid_map.empty()) {
      input.user.uid = record.uid_map.front().inside;
      input.user.gid = record.gid_map.front().inside;
    }
  }
  // apt fetches as a user of its own and makes sure that it is he; there is none.
  if (input.single_id && root.find("/etc/apt/apt.conf.d")) {
    input.apt_as_root = true;
    plan.files.push_back({"apt.conf", "APT::Sandbox::User \"root\";\n"});
  }
  input.rootfs = config.rootfs.empty() ? "merged" : config.rootfs;
  input.files = plan.bundle;
  input.known_caps = sys::known_caps();
  input.seccomp = seccomp_filter(config, security, input.known_caps);
  if (!security.apparmor.empty() && security.apparmor != "unconfined") {
    if (!context.host().security.get().apparmor) throw_error("--security-opt apparmor: AppArmor is not enabled here");
    input.apparmor_profile = security.apparmor;
  }
  plan_selinux(context, security, plan, input);
  input.cgroup_path = group.leaf;
  input.can_limit_pids = group.pids;
  if (config.http_proxy) input.http_proxy_env = proxy_variables();
  input.timezone_file = timezone_file(config.timezone);
  input.host_rlimits = caller_limits();
  input.init_program = init_program(config);

  add_account_files(context, record, root, plan, input);
  input.has_hosts = !config.no_hosts && !plan.network.hosts.empty();
  input.has_resolv_conf = !plan.network.resolv_conf.empty();
  input.has_hostname = !config.no_hostname;
  if (input.has_hosts) plan.files.push_back({"hosts", base_hosts(config, root) + plan.network.hosts});
  if (input.has_resolv_conf) plan.files.push_back({"resolv.conf", plan.network.resolv_conf});
  if (input.has_hostname) plan.files.push_back({"hostname", input.hostname + "\n"});
  plan.files.push_back(
      {"containerenv",
       config.privileged
           ? fmt::format("engine=\"kelp\"\nname=\"{}\"\nid=\"{}\"\nimage=\"{}\"\nimageid=\"{}\"\nrootless=1\n",
                         record.name, record.id, record.image_name, record.image_id)
           : ""});
  spec::RuntimeConfig made = make_runtime_config(input);
  plan_hooks(context, config, cdi, made, plan);
  plan.workdir = made.process->cwd;
  plan.config_json = spec::print_runtime_config(made);

  plan.stop_signal = effective_stop_signal(record);
  return plan;
}

void write_bundle(const StartPlan& plan) {
  for (const StartPlan::BundleFile& file : plan.files) write_plain(plan.bundle + "/" + file.name, file.text);
  write_plain(plan.bundle + "/config.json", plan.config_json);
}

void fill_volumes(Context& context, const StartPlan& plan, int root_fd) {
  const bool single = plan.single_id;
  if (plan.shm_of != 0) step("share /dev/shm", [&] { share_shm(plan); });
  sys::mkdirs_in_root(root_fd, plan.workdir, 0755, plan.root_uid, plan.root_gid);
  for (const CopyUp& copy : plan.copy_ups) {
    // Two containers may be the first to use a volume at the same time.
    const Fd data(::open(copy.data.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!data) throw_errno("open volume {}", copy.volume);
    const auto lock = sys::FileLock::exclusive_at(data.get());
    auto volume = store::find_volume(context.layout, copy.volume);
    if (!volume || !volume->needs_copy_up) continue;
    const Fd source = sys::try_open_in_root(root_fd, copy.image_path, O_RDONLY | O_DIRECTORY);
    sys::CopyOptions options;
    options.owners = !single;
    step("fill the volume from the image", [&] {
      if (source) {
        sys::copy_tree(source.get(), data.get(), options);
        sys::copy_attributes(source.get(), data.get(), options);
      } else if (!single && ::fchown(data.get(), plan.user_uid, plan.user_gid) < 0) {
        throw_errno("change owner of volume {}", copy.volume);
      }
      if ((volume->uid || volume->gid) && !single &&
          ::fchown(data.get(), volume->uid.value_or(static_cast<uid_t>(-1)),
                   volume->gid.value_or(static_cast<gid_t>(-1))) < 0)
        throw_errno("change owner of volume {}", copy.volume);
    });
    volume->needs_copy_up = false;
    store::update_volume(context.layout, *volume);
  }
  if (!single)
    for (const ChownRequest& chown : plan.chowns)
      sys::chown_tree_at(AT_FDCWD, chown.host_path.c_str(), plan.user_uid, plan.user_gid);
  for (const RelabelRequest& relabel : plan.relabels)
    step("relabel for SELinux", [&] {
      sys::set_xattr_of_tree(relabel.host_path, "security.selinux",
                             relabel.shared ? plan.shared_file_label : plan.file_label);
    });
  for (const auto& secret : plan.secrets) {
    if (!single && ::chown(secret.path.c_str(), secret.uid, secret.gid) < 0)
      throw_errno("change owner of the secret {}", secret.path);
    if (::chmod(secret.path.c_str(), secret.mode) < 0) throw_errno("change mode of the secret {}", secret.path);
  }
  if (plan.root_uid != 0)
    for (const char* name : {"hosts", "resolv.conf", "hostname", "passwd", "group", "containerenv"})
      (void)!::chown((plan.bundle + "/" + name).c_str(), plan.root_uid, plan.root_gid);  // some are not there
}

}  // namespace kelp::engine
