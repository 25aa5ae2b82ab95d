#include "engine/inspect.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"
#include "engine/cdi.h"
#include "engine/context.h"
#include "engine/dependencies.h"
#include "engine/health.h"
#include "engine/logs.h"
#include "engine/make_spec.h"
#include "engine/session.h"
#include "store/blobs.h"
#include "store/containers.h"
#include "store/health_record.h"
#include "sys/lock.h"
#include "sys/xattr_tree.h"

namespace kelp::engine {
namespace {

using Json = OrderedJson;

constexpr const char* kZeroTime = "0001-01-01T00:00:00Z";

std::optional<store::ImageRecord> image_of(Context& context, const store::ContainerRecord& record) {
  if (!record.image_digest.empty()) {
    if (auto image = store::image_by_manifest(context.layout, record.image_digest)) return image;
  }
  if (record.image_id.empty()) return std::nullopt;
  return store::find_image(context.layout, record.image_id);
}

/// The bundle's config.json of the last start; null before the first one.
Json bundle_config(Context& context, const store::ContainerRecord& record) {
  const auto text = sys::read_small_file(context.layout.container(record.id) + "/config.json", 8U << 20U);
  if (!text) return {};
  Json json = Json::parse(*text, nullptr, false);
  return json.is_object() ? json : Json();
}

Json at_path(const Json& json, std::initializer_list<const char*> path) {
  const Json* here = &json;
  for (const char* key : path) {
    if (!here->is_object() || !here->contains(key)) return {};
    here = &here->at(key);
  }
  return *here;
}

Json map_json(const store::StringMap& map) {
  Json json = Json::object();
  for (const auto& [key, value] : map) json[key] = value;
  return json;
}

Json nullable(const store::Strings& list) { return list.empty() ? Json() : Json(list); }

Json state_json(const store::ContainerStatus& status, const Json& health) {
  const bool running = status.status == store::Status::running || status.status == store::Status::paused ||
                       status.status == store::Status::stopping;
  const bool lives = status.run && (running || status.status == store::Status::initialized);
  Json state;
  state["OciVersion"] = "1.0.2";
  state["Status"] = store::status_name(status.status);
  state["Running"] = running;
  state["Paused"] = status.status == store::Status::paused;
  state["Restarting"] = false;
  state["OOMKilled"] = status.last_exit && status.last_exit->oom_killed;
  state["Dead"] = false;
  state["Pid"] = lives ? status.run->pid : 0;
  state["ConmonPid"] = lives ? status.run->monitor_pid : 0;
  // An exit that nobody recorded has no number: podman's key stays, with the value that no process can end with.
  state["ExitCode"] = status.last_exit ? status.last_exit->code : (status.exit_unknown ? -1 : 0);
  state["Error"] = status.exit_unknown ? "the exit code is unknown: the monitor ended before it could record it"
                                       : (status.last_exit ? status.last_exit->error : "");
  if (running && status.run) {
    state["StartedAt"] = format_rfc3339(status.run->started);
  } else {
    state["StartedAt"] = status.last_exit ? format_rfc3339(status.last_exit->started) : kZeroTime;
  }
  state["FinishedAt"] = status.last_exit ? format_rfc3339(status.last_exit->finished) : kZeroTime;
  state["Health"] = health.is_object() ? health : Json({{"Status", ""}, {"FailingStreak", 0}, {"Log", Json()}});
  state["CgroupPath"] = lives ? status.run->cgroup : "";
  state["CheckpointedAt"] = kZeroTime;
  state["RestoredAt"] = kZeroTime;
  return state;
}

Json mounts_json(Context& context, const store::ContainerRecord& record) {
  Json mounts = Json::array();
  for (const auto& mount : record.config.mounts) {
    if (mount.type != "bind" && mount.type != "volume") continue;
    Json entry;
    entry["Type"] = mount.type;
    if (mount.type == "volume") {
      entry["Name"] = mount.source;
      entry["Source"] = context.layout.volume(mount.source) + "/_data";
      if (auto volume = store::find_volume(context.layout, mount.source)) entry["Source"] = volume->mountpoint;
    } else {
      entry["Source"] = mount.source;
    }
    entry["Destination"] = mount.target;
    entry["Driver"] = mount.type == "volume" ? "local" : "";
    entry["Mode"] = "";
    Json options = Json::array();
    std::string propagation = "rprivate";
    bool writable = true;
    for (const auto& option : mount.options) {
      static constexpr std::string_view kPropagations[] = {"private", "rprivate", "shared",
                                                           "rshared", "slave",    "rslave"};
      if (option == "ro" || option == "readonly") writable = false;
      if (std::find(std::begin(kPropagations), std::end(kPropagations), option) != std::end(kPropagations)) {
        propagation = option;
      } else if (option != "rw" && option != "ro") {
        options.push_back(option);
      }
    }
    entry["Options"] = std::move(options);
    entry["RW"] = writable;
    entry["Propagation"] = propagation;
    mounts.push_back(std::move(entry));
  }
  return mounts;
}

Json bindings_json(const std::vector<store::PortMapping>& ports) {
  Json bindings = Json::object();
  for (const auto& port : ports) {
    const std::string key = fmt::format("{}/{}", port.container_port, port.protocol);
    bindings[key].push_back({{"HostIp", port.host_ip}, {"HostPort", fmt::format("{}", port.host_port)}});
  }
  return bindings;
}

Json network_json(const store::ContainerRecord& record, const store::ContainerStatus& status) {
  Json network;
  for (const char* key : {"EndpointID", "Gateway", "IPAddress"}) network[key] = "";
  network["IPPrefixLen"] = 0;
  for (const char* key : {"IPv6Gateway", "GlobalIPv6Address"}) network[key] = "";
  network["GlobalIPv6PrefixLen"] = 0;
  for (const char* key : {"MacAddress", "Bridge", "SandboxID"}) network[key] = "";
  network["HairpinMode"] = false;
  network["LinkLocalIPv6Address"] = "";
  network["LinkLocalIPv6PrefixLen"] = 0;
  Json ports = bindings_json(record.ports);
  for (const auto& exposed : record.config.expose) {
    if (!ports.contains(exposed)) ports[exposed] = Json();
  }
  network["Ports"] = std::move(ports);
  network["SandboxKey"] = status.run && status.run->pid > 0 ? fmt::format("/proc/{}/ns/net", status.run->pid) : "";
  return network;
}

/// The environment as the process gets it: the bundle's once there is one, else image and options.
Json env_json(const store::ContainerRecord& record, const Json& bundle) {
  const Json from_bundle = at_path(bundle, {"process", "env"});
  if (from_bundle.is_array()) {
    Json shown = Json::array();
    for (const auto& entry : from_bundle) {
      const bool secret = std::any_of(record.config.secrets.begin(), record.config.secrets.end(), [&](const auto& one) {
        return one.env && entry.is_string() &&
               starts_with(entry.template get_ref<const std::string&>(), one.target + "=");
      });
      if (!secret) shown.push_back(entry);
    }
    return shown;
  }
  store::StringMap env;
  if (!record.config.unset_env_all) {
    for (const auto& entry : record.image.env) {
      const size_t equals = entry.find('=');
      env[entry.substr(0, equals)] = equals == std::string::npos ? "" : entry.substr(equals + 1);
    }
  }
  for (const auto& name : record.config.unset_env) env.erase(name);
  for (const auto& [name, value] : record.config.env) env[name] = value;
  Json list = Json::array();
  for (const auto& [name, value] : env) list.push_back(name + "=" + value);
  return list;
}

/// What the monitor has written last; null where there is no check.
Json read_health_log(Context& context, const store::ContainerRecord& record) {
  const auto check = effective_health(record);
  if (!check) return {};
  store::refuse_newer_health(context.layout, record.id);
  const auto text = sys::read_small_file(health_file(context, record, *check), 16U << 20U);
  Json health = text ? Json::parse(*text, nullptr, false) : Json();
  if (health.is_object()) health.erase("schema");
  return health;
}

Json health_json(const store::ContainerRecord& record) {
  const auto check = effective_health(record);
  if (!check && record.config.health && record.config.health->test == store::Strings{"NONE"})
    return {{"Test", record.config.health->test}};
  if (!check) return {};
  return {{"Test", check->test},
          {"StartPeriod", check->start_period->count()},
          {"Interval", check->interval->count()},
          {"Timeout", check->timeout->count()},
          {"Retries", *check->retries}};
}

Json startup_json(const store::ContainerRecord& record) {
  const auto check = effective_health(record);
  if (!check || check->startup_test.empty()) return {};
  return {{"Test", check->startup_test},
          {"Interval", check->startup_interval->count()},
          {"Timeout", check->startup_timeout->count()},
          {"Retries", check->startup_retries},
          {"Successes", check->startup_success}};
}

Json secrets_json(const store::ContainerRecord& record) {
  Json list = Json::array();
  for (const auto& secret : record.config.secrets)
    list.push_back(
        {{"Name", secret.name}, {"ID", secret.id}, {"UID", secret.uid}, {"GID", secret.gid}, {"Mode", secret.mode}});
  return list;
}

Json config_json(const store::ContainerRecord& record, const Json& bundle) {
  const auto& defaults = record.image;
  const auto& config = record.config;
  Json json;
  const Json bundle_host = at_path(bundle, {"hostname"});
  json["Hostname"] = config.hostname ? Json(*config.hostname)
                                     : (bundle_host.is_string() ? bundle_host : Json(record.id.substr(0, 12)));
  json["Domainname"] = "";
  json["User"] = config.user.empty() ? defaults.user : config.user;
  json["AttachStdin"] = false;
  json["AttachStdout"] = false;
  json["AttachStderr"] = false;
  json["Tty"] = config.tty;
  json["OpenStdin"] = config.interactive;
  json["StdinOnce"] = false;
  json["Env"] = env_json(record, bundle);
  const bool own_entrypoint = config.entrypoint.has_value();
  json["Cmd"] =
      !config.command.empty() ? Json(config.command) : nullable(own_entrypoint ? store::Strings{} : defaults.cmd);
  json["Image"] = record.image_name.empty() ? record.image_id : record.image_name;
  json["Volumes"] = Json();
  json["WorkingDir"] = !config.workdir.empty() ? config.workdir : (defaults.workdir.empty() ? "/" : defaults.workdir);
  json["Entrypoint"] = join(own_entrypoint ? *config.entrypoint : defaults.entrypoint, " ");
  json["OnBuild"] = Json();
  const store::StringMap labels = shown_labels(record);
  json["Labels"] = labels.empty() ? Json() : map_json(labels);
  json["Annotations"] = map_json(config.annotations);
  json["StopSignal"] = effective_stop_signal(record);
  if (const Json health = health_json(record); !health.is_null()) json["Healthcheck"] = health;
  if (const Json startup = startup_json(record); !startup.is_null()) json["StartupHealthCheck"] = startup;
  json["HealthcheckOnFailureAction"] = "none";
  json["sdNotifyMode"] = config.sdnotify;
  if (const auto check = effective_health(record)) {
    json["HealthcheckOnFailureAction"] = check->on_failure;
    json["HealthLogDestination"] = check->log_destination;
    json["HealthMaxLogCount"] = check->max_log_count;
    json["HealthMaxLogSize"] = check->max_log_size;
  }
  if (!config.secrets.empty()) json["Secrets"] = secrets_json(record);
  json["CreateCommand"] = config.create_command;
  if (!config.timezone.empty()) json["Timezone"] = config.timezone;
  json["Umask"] = fmt::format("{:0>4}", config.umask.value_or("0022"));
  json["Timeout"] = config.timeout;
  json["StopTimeout"] = config.stop_timeout.value_or(10);
  json["Passwd"] = true;
  if (runs_systemd(config, effective_command(record.image, config))) json["SystemdMode"] = true;
  return json;
}

std::int64_t nano_cpus(const store::Resources& resources) {
  return resources.cpus ? static_cast<std::int64_t>(*resources.cpus * 1e9) : 0;
}

Json restart_policy_json(const store::ContainerConfig& config) {
  return {{"Name", config.restart_policy == "no" ? "" : config.restart_policy},
          {"MaximumRetryCount", config.restart_max}};
}

Json host_config_limits(const store::ContainerRecord& record) {
  const auto& resources = record.config.resources;
  Json json;
  json["CpuShares"] = resources.cpu_shares.value_or(0);
  json["Memory"] = resources.memory.value_or(0);
  json["NanoCpus"] = nano_cpus(resources);
  json["CgroupParent"] = record.config.cgroup_parent;
  json["BlkioWeight"] = resources.blkio_weight.value_or(0);
  json["BlkioWeightDevice"] = nullable(resources.blkio_weight_device);
  json["BlkioDeviceReadBps"] = nullable(resources.device_read_bps);
  json["BlkioDeviceWriteBps"] = nullable(resources.device_write_bps);
  json["BlkioDeviceReadIOps"] = nullable(resources.device_read_iops);
  json["BlkioDeviceWriteIOps"] = nullable(resources.device_write_iops);
  json["CpuPeriod"] = resources.cpu_period.value_or(0);
  json["CpuQuota"] = resources.cpu_quota.value_or(0);
  json["CpuRealtimePeriod"] = resources.cpu_rt_period.value_or(0);
  json["CpuRealtimeRuntime"] = resources.cpu_rt_runtime.value_or(0);
  json["CpusetCpus"] = resources.cpuset_cpus.value_or("");
  json["CpusetMems"] = resources.cpuset_mems.value_or("");
  json["MemoryReservation"] = resources.memory_reservation.value_or(0);
  json["MemorySwap"] = resources.memory_swap.value_or(0);
  json["MemorySwappiness"] = resources.memory_swappiness.value_or(0);
  json["OomKillDisable"] = resources.oom_kill_disable;
  json["PidsLimit"] = resources.pids_limit.value_or(0);
  json["CgroupConf"] = resources.unified.empty() ? Json() : map_json(resources.unified);
  Json ulimits = Json::array();
  for (const auto& limit : record.config.ulimits) {
    std::string name = "RLIMIT_";
    for (const char c : limit.name) name += static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
    ulimits.push_back({{"Name", name}, {"Soft", limit.soft}, {"Hard", limit.hard}});
  }
  json["Ulimits"] = std::move(ulimits);
  return json;
}

std::string mode_or(const std::string& mode, const char* fallback) { return mode.empty() ? fallback : mode; }

/// How its group was made, seen from where it is; before it has one: what was asked for.
const char* manager_name(const Context& context, const store::ContainerRecord& record,
                         const store::ContainerStatus& status) {
  if (record.config.cgroups == "disabled") return "none";
  if (status.run) {
    if (status.run->cgroup.empty()) return "none";
    return status.run->cgroup.find(".scope") != std::string::npos ? "systemd" : "cgroupfs";
  }
  return context.global.cgroup_manager == "systemd" ? "systemd" : "cgroupfs";
}

/// "5m" as podman shows it, "5MB": the limit itself is counted in powers of 1024.
std::string log_size(const std::string& text) {
  try {
    double bytes = static_cast<double>(parse_size(text, "log option max-size"));
    double unit = 1;
    const auto letter = text.find_first_of("kKmMgGtTpP");
    if (letter != std::string::npos)
      unit = std::pow(1000.0 / 1024, std::string_view("kmgtp").find(to_lower(text.substr(letter, 1))) + 1);
    return human_size_short(static_cast<std::uint64_t>(bytes * unit + 0.5));
  } catch (const Error&) {  // of a record that somebody else has written
    return text;
  }
}

Json host_config_json(const store::ContainerRecord& record, const char* manager) {
  const auto& config = record.config;
  Json json;
  Json binds = Json::array();
  Json tmpfs = Json::object();
  for (const auto& mount : config.mounts) {
    const std::string options = join(mount.options, ",");
    if (mount.type == "tmpfs") {
      tmpfs[mount.target] = options;
    } else if (mount.type == "bind" || mount.type == "volume") {
      binds.push_back(mount.source + ":" + mount.target + (options.empty() ? "" : ":" + options));
    }
  }
  json["Binds"] = std::move(binds);
  json["CgroupMode"] = mode_or(config.cgroupns, "private");
  json["ContainerIDFile"] = config.cidfile;
  json["LogConfig"] = {{"Type", config.log_driver}, {"Config", Json()}, {"Path", ""}, {"Tag", ""}, {"Size", "0B"}};
  if (const auto path = config.log_options.find("path"); path != config.log_options.end())
    json["LogConfig"]["Path"] = path->second;
  if (const auto tag = config.log_options.find("tag"); tag != config.log_options.end())
    json["LogConfig"]["Tag"] = tag->second;
  if (const auto size = config.log_options.find("max-size"); size != config.log_options.end())
    json["LogConfig"]["Size"] = log_size(size->second);
  json["NetworkMode"] = config.networks.empty() ? "slirp4netns" : config.networks.front();
  json["PortBindings"] = bindings_json(record.ports);
  json["RestartPolicy"] = restart_policy_json(config);
  json["AutoRemove"] = config.remove;
  json["VolumeDriver"] = "";
  json["VolumesFrom"] = nullable(config.volumes_from);
  json["CapAdd"] = config.cap_add;
  json["CapDrop"] = config.cap_drop;
  json["Dns"] = config.dns;
  json["DnsOptions"] = config.dns_option;
  json["DnsSearch"] = config.dns_search;
  json["ExtraHosts"] = config.add_host;
  json["GroupAdd"] = config.group_add;
  json["IpcMode"] = mode_or(config.ipc, "shareable");
  json["Cgroup"] = "";
  json["CgroupManager"] = manager;
  // Members that only other systems fill, or that the kernel has given up: podman shows them as well.
  for (const char* name :
       {"CpuCount", "CpuPercent", "DiskQuota", "IOMaximumBandwidth", "IOMaximumIOps", "KernelMemory"})
    json[name] = 0;
  json["Cgroups"] = config.cgroups == "disabled" ? "disabled" : "default";
  json["Links"] = Json();
  json["OomScoreAdj"] = config.resources.oom_score_adj.value_or(0);
  json["PidMode"] = mode_or(config.pid, "private");
  json["Privileged"] = config.privileged;
  json["PublishAllPorts"] = config.publish_all;
  json["ReadonlyRootfs"] = config.read_only;
  json["SecurityOpt"] = config.security_opt;
  json["Tmpfs"] = std::move(tmpfs);
  json["UTSMode"] = mode_or(config.uts, "private");
  json["UsernsMode"] = config.userns;
  json["ShmSize"] = config.resources.shm_size.value_or(65536000);
  json["Runtime"] = "oci";
  json["ConsoleSize"] = {0, 0};
  json["Isolation"] = "";
  json["Init"] = config.init;
  json["Sysctls"] = map_json(config.sysctl);
  Json devices = Json::array();
  for (const auto& device : config.devices) {
    if (is_cdi_name(device)) continue;  // its nodes are known at a start only
    const auto parts = split(device, ':');
    devices.push_back({{"PathOnHost", parts[0]},
                       {"PathInContainer", parts.size() > 1 && starts_with(parts[1], "/") ? parts[1] : parts[0]},
                       {"CgroupPermissions", parts.size() > 2 ? parts[2] : "rwm"}});
  }
  json["Devices"] = std::move(devices);
  json.update(host_config_limits(record));
  return json;
}

}  // namespace

ContainerSize container_size(Context& context, const store::ContainerRecord& record) {
  const std::string upper = context.layout.container(record.id) + "/upper";
  const std::string answer =
      ask_in_userns(context, [&upper] { return fmt::format("{}", sys::tree_size(upper).bytes); });
  ContainerSize size;
  size.writable = static_cast<std::uint64_t>(to_int(answer, 0).value_or(0));
  size.root = size.writable;
  if (const auto image = image_of(context, record)) size.root += image->size;
  return size;
}

std::string network_mode_name(const store::ContainerRecord& record) {
  if (record.config.networks.empty()) return "slirp4netns";
  const std::string& mode = record.config.networks.front();
  return mode.substr(0, mode.find(':'));
}

store::StringMap shown_labels(const store::ContainerRecord& record) {
  store::StringMap labels = record.image.labels;
  for (const auto& [key, value] : record.config.labels) labels[key] = value;
  return labels;
}

store::Strings shown_command(const store::ContainerRecord& record) {
  const auto& config = record.config;
  store::Strings line = config.entrypoint.value_or(record.image.entrypoint);
  const auto& command = config.command.empty() && !config.entrypoint ? record.image.cmd : config.command;
  line.insert(line.end(), command.begin(), command.end());
  return line;
}

Json inspect_container(Context& context, const store::ContainerRecord& record, bool size) {
  const auto status = store::status(context.layout, record);
  const Json bundle = bundle_config(context, record);
  const std::string directory = context.layout.container(record.id);
  const store::Strings line = shown_command(record);
  Json json;
  json["Id"] = record.id;
  json["Created"] = format_rfc3339(record.created);
  json["Path"] = line.empty() ? "" : line.front();
  json["Args"] = line.empty() ? store::Strings{} : store::Strings(line.begin() + 1, line.end());
  json["State"] = state_json(status, read_health_log(context, record));
  json["Image"] = record.image_id;
  json["ImageDigest"] = record.image_digest;
  json["ImageName"] = record.image_name;
  json["Rootfs"] = record.config.rootfs;
  json["Pod"] = "";
  const auto file = [&](const char* name) {
    const std::string path = directory + "/" + name;
    return ::access(path.c_str(), F_OK) == 0 ? path : std::string();
  };
  json["ResolvConfPath"] = file("resolv.conf");
  json["HostnamePath"] = file("hostname");
  json["HostsPath"] = file("hosts");
  json["StaticDir"] = directory;
  json["OCIConfigPath"] = bundle.is_null() ? "" : directory + "/config.json";
  json["OCIRuntime"] = context.global.runtime.empty() ? "kelp-oci" : context.global.runtime;
  json["ConmonPidFile"] = record.config.conmon_pidfile;
  json["PidFile"] = record.config.pidfile;
  json["Name"] = record.name;
  json["RestartCount"] = status.run ? status.run->restarts : status.last_exit ? status.last_exit->restarts : 0;
  json["Driver"] = "overlay";
  const auto label = [](const Json& found) { return found.is_string() ? found : Json(""); };
  json["MountLabel"] = label(at_path(bundle, {"linux", "mountLabel"}));
  json["ProcessLabel"] = label(at_path(bundle, {"process", "selinuxLabel"}));
  json["AppArmorProfile"] = "";
  json["EffectiveCaps"] = at_path(bundle, {"process", "capabilities", "effective"});
  json["BoundingCaps"] = at_path(bundle, {"process", "capabilities", "bounding"});
  json["ExecIDs"] = Json::array();
  Json data = {{"UpperDir", directory + "/upper"}, {"WorkDir", directory + "/work"}};
  std::string lowers;
  for (auto chain = record.layer_chain.rbegin(); chain != record.layer_chain.rend(); ++chain) {
    lowers += (lowers.empty() ? "" : ":") + context.layout.layer(*chain, record.map_key) + "/diff";
  }
  data["LowerDir"] = lowers;
  if (status.run) data["MergedDir"] = directory + "/merged";
  json["GraphDriver"] = {{"Name", "overlay"}, {"Data", std::move(data)}};
  if (size) {
    const ContainerSize bytes = container_size(context, record);
    json["SizeRw"] = bytes.writable;
    json["SizeRootFs"] = bytes.root;
  }
  json["Mounts"] = mounts_json(context, record);
  json["Dependencies"] = dependencies(record.config);
  json["NetworkSettings"] = network_json(record, status);
  json["Namespace"] = "";
  json["IsInfra"] = false;
  json["IsService"] = false;
  json["Config"] = config_json(record, bundle);
  json["HostConfig"] = host_config_json(record, manager_name(context, record, status));
  json["HostConfig"]["LogConfig"]["Path"] =
      record.config.log_options.contains("path")
          ? record.config.log_options.at("path")
          : (has_log_file(record.config.log_driver) ? directory + "/ctr.log" : "");
  return json;
}

namespace {

/// The media type that the image's manifest says of itself.
std::string manifest_type(Context& context, const store::ImageRecord& image) {
  const auto text = store::read_blob(context.layout, DigestName::require(image.digest), spec::kMaxDocumentBytes);
  const auto manifest = spec::parse_manifest(text, "manifest " + image.digest);
  return manifest.media_type.empty() ? spec::media::kManifest : manifest.media_type;
}

}  // namespace

Json inspect_image(Context& context, const store::ImageRecord& image) {
  Json json;
  json["Id"] = image.id;
  json["Digest"] = image.digest;
  json["RepoTags"] = image.names;
  json["RepoDigests"] = image.repo_digests();
  json["Parent"] = "";
  const spec::ImageConfig config = store::read_image_config(context.layout, image);
  json["Comment"] = !config.comment.empty() || config.history.empty() ? config.comment : config.history.back().comment;
  json["Created"] = image.created;
  Json run = Json::parse(spec::print_run_config(image.config), nullptr, false);
  json["Config"] = run.is_object() ? run : Json::object();
  json["Version"] = "";
  json["Author"] = image.author;
  json["Architecture"] = image.platform.architecture;
  json["Os"] = image.platform.os;
  if (!image.platform.variant.empty()) json["Variant"] = image.platform.variant;
  json["Size"] = image.size;
  json["VirtualSize"] = image.size;
  Json lowers = Json::object();
  if (!image.layers.empty()) lowers["UpperDir"] = context.layout.layers() + "/" + image.layers.back().chain;
  json["GraphDriver"] = {{"Name", "overlay"}, {"Data", std::move(lowers)}};
  json["RootFS"] = {{"Type", "layers"}, {"Layers", config.diff_ids}};
  json["Labels"] = image.config.labels.empty() ? Json() : map_json(image.config.labels);
  json["Annotations"] = Json::object();
  json["ManifestType"] = manifest_type(context, image);
  json["User"] = image.config.user;
  Json history = Json::array();
  for (const auto& entry : config.history) {
    Json line;
    line["created"] = entry.created;
    if (!entry.created_by.empty()) line["created_by"] = entry.created_by;
    if (!entry.author.empty()) line["author"] = entry.author;
    if (!entry.comment.empty()) line["comment"] = entry.comment;
    if (entry.empty_layer) line["empty_layer"] = true;
    history.push_back(std::move(line));
  }
  json["History"] = std::move(history);
  json["NamesHistory"] = store::name_history(image);
  return json;
}

Json inspect_artifact(const store::ImageList& artifact) {
  const spec::ImageManifest manifest = spec::parse_manifest(artifact.text, "manifest " + artifact.digest);
  const auto part = [](const spec::Descriptor& blob) {
    Json json;
    json["MediaType"] = blob.media_type;
    json["Digest"] = blob.digest;
    json["Size"] = blob.size;
    if (!blob.annotations.empty()) json["Annotations"] = map_json(blob.annotations);
    return json;
  };
  Json json;
  json["Digest"] = artifact.digest;
  json["RepoTags"] = artifact.names;
  json["ManifestType"] = manifest.media_type;
  json["ArtifactType"] = manifest.artifact_type.empty() ? manifest.config.media_type : manifest.artifact_type;
  json["Config"] = part(manifest.config);
  json["Layers"] = Json::array();
  std::uint64_t size = manifest.config.size;
  for (const auto& layer : manifest.layers) {
    json["Layers"].push_back(part(layer));
    size += layer.size;
  }
  json["Annotations"] = map_json(manifest.annotations);
  json["Size"] = size;
  return json;
}

Json inspect_volume(Context& context, const store::VolumeRecord& volume) {
  Json json;
  json["Name"] = volume.name;
  json["Driver"] = volume.driver;
  json["Mountpoint"] = volume.mountpoint.empty() ? context.layout.volume(volume.name) + "/_data" : volume.mountpoint;
  json["CreatedAt"] = format_rfc3339(volume.created);
  json["Labels"] = map_json(volume.labels);
  json["Scope"] = "local";
  json["Options"] = map_json(volume.options);
  if (volume.uid) json["UID"] = *volume.uid;
  if (volume.gid) json["GID"] = *volume.gid;
  if (volume.anonymous) json["Anonymous"] = true;
  json["MountCount"] = 0;
  json["NeedsCopyUp"] = volume.needs_copy_up;
  json["NeedsChown"] = false;
  return json;
}

}  // namespace kelp::engine
