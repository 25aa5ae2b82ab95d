#include "engine/create.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "engine/cdi.h"
#include "engine/devices.h"
#include "engine/events.h"
#include "engine/health.h"
#include "engine/journal.h"
#include "engine/make_spec.h"
#include "engine/monitor_client.h"
#include "engine/mounts.h"
#include "engine/network.h"
#include "engine/prepare.h"
#include "engine/remove.h"
#include "engine/secrets.h"
#include "engine/session.h"
#include "engine/user_namespace.h"
#include "engine/users.h"
#include "monitor/protocol.h"
#include "spec/validate.h"
#include "store/containers.h"
#include "store/images.h"
#include "store/layers.h"
#include "sys/capability.h"
#include "sys/safe_path.h"
#include "sys/signals.h"

namespace kelp::engine {

namespace {

store::ImageDefaults defaults_of(const store::ImageRecord& image) {
  const spec::ImageRunConfig& from = image.config;
  store::ImageDefaults made;
  made.env = from.env;
  made.entrypoint = from.entrypoint;
  made.cmd = from.cmd;
  made.volumes = from.volumes;
  made.exposed_ports = from.exposed_ports;
  made.workdir = from.working_dir;
  made.user = from.user;
  made.stop_signal = from.stop_signal;
  made.labels = from.labels;
  if (from.healthcheck && !from.healthcheck->test.empty()) {
    store::HealthCheck health;
    health.test = from.healthcheck->test;
    if (from.healthcheck->interval.count() > 0) health.interval = from.healthcheck->interval;
    if (from.healthcheck->timeout.count() > 0) health.timeout = from.healthcheck->timeout;
    if (from.healthcheck->start_period.count() > 0) health.start_period = from.healthcheck->start_period;
    if (from.healthcheck->retries > 0) health.retries = from.healthcheck->retries;
    made.health = std::move(health);
  }
  return made;
}

void check_name_is_free(Context& context, const std::string& name) {
  if (name.empty()) return;
  store::check_name(name, "container");
  const auto holder = store::id_of_name(context.layout, name);  // not of an id that begins so
  const auto other = holder ? store::find(context.layout, *holder) : std::nullopt;
  if (!other || other->name != name) return;
  UsageError error(
      fmt::format("the container name {} is already in use by {}: you have to remove (or rename) that "
                  "container to be able to reuse that name: that name is already in use",
                  quoted(name), other->id));
  error.with_hint("kelp rm " + name + ", kelp run --replace, or another --name");
  throw error;
}

/// Other containers that the options name must be there, and are kept by their ids, which no rename changes.
void resolve_references(Context& context, store::ContainerConfig& config, const NetworkMode& network) {
  constexpr std::string_view kContainer = "container:";
  std::vector<std::string*> modes = {&config.pid, &config.ipc, &config.uts, &config.cgroupns, &config.userns};
  for (std::string& mode : config.networks) modes.push_back(&mode);
  for (std::string* mode : modes)
    if (starts_with(*mode, kContainer))
      mode->replace(kContainer.size(), std::string::npos,
                    store::get(context.layout, std::string_view(*mode).substr(kContainer.size())).id);
  for (const auto& [option, mode] : {std::pair("pid", &config.pid), std::pair("ipc", &config.ipc),
                                     std::pair("uts", &config.uts), std::pair("cgroupns", &config.cgroupns)})
    if (starts_with(*mode, "ns:") && ::access(mode->c_str() + 3, F_OK) < 0) throw_errno("--{} {}", option, *mode);
  for (std::string& name : config.depends_on) name = store::get(context.layout, name).id;
  if (network.kind == NetworkMode::Kind::ns_path && ::access(network.argument.c_str(), F_OK) < 0)
    throw_errno("--network ns:{}", network.argument);
}

std::string full_rootfs(const std::string& path) {
  char* real = ::realpath(path.c_str(), nullptr);
  if (real == nullptr) throw_errno("--rootfs {}", path);
  std::string found(real);
  std::free(real);
  struct stat info {};
  if (::stat(found.c_str(), &info) < 0 || !S_ISDIR(info.st_mode)) throw SysError("--rootfs " + path, ENOTDIR);
  return found;
}

/// What a start would refuse, refused now: nothing is on disk yet but the image. Not a working directory or a user that
/// is missing: `cp` may bring it before the start.
void check_against_image(Context& context, const store::ContainerRecord& record) {
  effective_command(record.image, record.config);
  if (record.config.health && record.config.health->on_failure != "none" && !effective_health(record))
    throw_usage("--health-on-failure {}: there is no health check", record.config.health->on_failure);
  find_devices(record.config);
  find_cdi_edits(context.global.cdi_spec_dirs, record.config.devices);
}

/// There is one id. Whoever the process is to be, it is that one under another number: programs that will not run as
/// root (postgres) do run.
void name_single_id(Context& context, store::ContainerRecord& record) {
  if (record.map_key != "single" || !record.uid_map.empty()) return;
  const LayeredRoot root(root_directories(context, record, false));
  const ResolvedUser user = resolve_user(effective_user(record), {}, root.read("/etc/passwd").value_or(""),
                                         root.read("/etc/group").value_or(""));
  if (user.uid == 0 && user.gid == 0) return;
  record.uid_map = {{user.uid, 0, 1}};
  record.gid_map = {{user.gid, 0, 1}};
}

void write_id_file(const std::string& path, const std::string& id) {
  const Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!fd && errno == EEXIST)
    throw_usage("container id file exists. Ensure another container is not using it or delete {}", path);
  if (!fd) throw_errno("create --cidfile {}", path);
  sys::write_all(fd.get(), id, path);
}

void take_image(store::ContainerRecord& record, const store::ImageRecord& image, const std::string& typed) {
  record.image_id = image.id;
  record.image_digest = image.digest;
  record.image_name = image.names.empty() ? typed : image.names.front();
  for (const spec::ImageName& wanted : spec::local_candidates(typed))
    for (const std::string& name : image.names)
      if (name == wanted.full()) record.image_name = name;
  record.layer_chain = image.chains();
  record.image = defaults_of(image);
}

void check_numbers(const store::Resources& resources) {
  const int score = resources.oom_score_adj.value_or(0);
  if (score < -1000 || score > 1000) throw_usage("--oom-score-adj {}: from -1000 to 1000", score);
  if (resources.memory.value_or(0) < 0) throw_usage("--memory: the limit must not be negative");
  if (resources.cpus.value_or(0) < 0) throw_usage("invalid --cpus {}: a positive number", *resources.cpus);
  if (resources.cpu_shares.value_or(0) < 0) throw_usage("--cpu-shares {}: a positive number", *resources.cpu_shares);
}

}  // namespace

ContainerIds resolve_ids(Context& context, const store::ContainerConfig& config) {
  if (starts_with(config.userns, "container:")) {
    const store::ContainerRecord other = store::get(context.layout, config.userns.substr(10));
    return {other.uid_map, other.gid_map, layers_map(other), ""};
  }
  std::vector<sys::IdRanges> taken;
  if (starts_with(config.userns, "auto"))
    for (const store::ContainerRecord& other : store::list(context.layout))
      if (starts_with(other.config.userns, "auto")) taken.push_back(other.uid_map);
  return plan_ids(config, wanted_maps(context), ::getuid(), ::getgid(), taken);
}

void check_config(const store::ContainerConfig& config) {
  if (config.log_driver == "journald") check_journal();
  check_network(config, parse_network_mode(config.networks));
  parse_security_options(config.security_opt);
  wanted_capabilities(config, sys::known_caps());
  check_seccomp_profile(config);
  if (config.remove && config.restart_policy != "no" && !config.restart_policy.empty())
    throw_usage("the --rm option conflicts with --restart, when the restartPolicy is not \"\" and \"no\"");
  if (config.hostname.value_or("").size() > HOST_NAME_MAX)
    throw_usage("--hostname {}: longer than {} characters", quoted(*config.hostname), HOST_NAME_MAX);
  check_numbers(config.resources);
  if (config.tty && config.log_driver == "passthrough")
    throw_usage("--tty and --log-driver passthrough exclude each other: the terminal is the monitor's to read");
  if (config.ipc == "host" && config.resources.shm_size)
    throw_usage("--shm-size and --ipc host exclude each other: /dev/shm is the host's");
  std::string_view kind;
  for (const auto& [key, value] : config.sysctl)
    if (!spec::is_namespaced_sysctl(key, &kind))
      throw_usage("sysctl {} is not one of a namespace: it would change the host", quoted(key));
  if (!config.umask.value_or("0").empty() && !to_octal(config.umask.value_or("0"), 0777))
    throw_usage("invalid --umask {}: octal digits", quoted(*config.umask));
  for (const store::Ulimit& limit : config.ulimits)
    if (limit.name != "host" && limit.hard >= 0 && (limit.soft > limit.hard || limit.soft < 0))
      throw_usage("--ulimit {}: the soft limit {} is above the hard limit {}", limit.name, limit.soft, limit.hard);
  if (config.stop_signal && !config.stop_signal->empty() && sys::signal_from_name(*config.stop_signal) <= 0)
    throw_usage("invalid --stop-signal {}", quoted(*config.stop_signal));
  for (const std::string& group : config.group_add)
    if (group == "keep-groups" && config.group_add.size() > 1)
      throw_usage("--group-add keep-groups excludes every other --group-add: the kernel takes all of a list or none");
  if (config.image_volume != "anonymous" && config.image_volume != "tmpfs" && config.image_volume != "ignore" &&
      config.image_volume != "bind")
    throw_usage("--image-volume {}: anonymous, tmpfs and ignore are possible", quoted(config.image_volume));
}

NewContainer create_container(Context& context, const store::ContainerConfig& config, const std::string& image,
                              const PullOptions& pull, const ProgressFn& progress) {
  store::ContainerRecord record;
  record.config = config;
  record.name = config.name;
  record.created = std::chrono::system_clock::now();

  // Words first: bad input must not cost a pull.
  step("check the options", [&] { check_config(config); });
  const NetworkMode network = parse_network_mode(config.networks);
  check_name_is_free(context, config.name);
  resolve_references(context, record.config, network);
  resolve_secrets(context, record.config);
  if (!config.cidfile.empty() && ::access(config.cidfile.c_str(), F_OK) == 0)
    throw_usage("container id file exists. Ensure another container is not using it or delete {}", config.cidfile);
  const ContainerIds ids = resolve_ids(context, record.config);
  check_limits(context, record.config);
  record.uid_map = ids.uids;
  record.gid_map = ids.gids;
  record.map_key = ids.layers.key;

  store::prepare(context.layout);
  sweep_trash(context);
  // From here until the record is published, prune must not take the image's layers away.
  const store::StoreUse use(context.layout);
  if (config.rootfs.empty()) {
    const store::ImageRecord found =
        step("find the image", [&] { return ensure_image(context, image, pull, progress); });
    take_image(record, found, image);
    store::note_use(context.layout, found);
    step("make the layers", [&] { ensure_layers(context, found, ids.layers, progress); });
  } else {
    record.config.rootfs = full_rootfs(config.rootfs);
  }
  check_against_image(context, record);
  name_single_id(context, record);
  record.config.mounts = resolve_mount_requests(context, config, record.image.volumes);
  record.ports = resolve_ports(config, network, record.image.exposed_ports);

  // Names of anonymous volumes stand in the draft before they are made: a sweep of a dead draft finds them.
  for (store::MountRequest& mount : record.config.mounts)
    if (mount.type == "volume" && mount.source.empty()) {
      mount.source = store::new_container_id();
      record.anonymous_volumes.push_back(mount.source);
    }
  store::ContainerDraft draft = store::ContainerDraft::begin(context.layout, std::move(record));
  Rollback undo;
  for (const std::string& name : create_missing_volumes(context, draft.record()))
    undo.add([&context, name] {
      if (const auto volume = store::find_volume(context.layout, name))
        store::remove_volume(context.layout, *volume, true);
    });
  if (!config.cidfile.empty()) {
    write_id_file(config.cidfile, draft.record().id);
    undo.add([&config] { ::unlink(config.cidfile.c_str()); });
  }
  copy_secrets(context, draft.record().config, draft.directory());
  sys::FileLock lock = draft.lock();
  store::ContainerRecord made = draft.publish();
  undo.commit();
  emit_event(context, made, "create");
  log::debug("created container {} ({})", made.name, made.id);
  return {std::move(made), std::move(lock)};
}

void rename_container(Context& context, const store::ContainerRecord& record, const std::string& new_name) {
  constexpr std::uint32_t kVersionOfRename = 5;
  emit_event(context, store::rename_container(context.layout, record, new_name), "rename");
  try {  // so that the events of its end have the new name; those of an older kelp's monitor keep the old one
    const auto link = connect_monitor(context, record.id);
    if (!link || link->version < kVersionOfRename) return;
    monitor::Frame answer;
    monitor::send_frame(link->socket.get(), {.type = monitor::Msg::rename}, new_name, {}, true);
    monitor::receive_frame(link->socket.get(), answer, true);
  } catch (const Error& error) {
    log::debug("tell the monitor of {} its name: {}", record.id, error.message());
  }
}

}  // namespace kelp::engine
