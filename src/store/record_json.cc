#include "store/record_json.h"

#include <nlohmann/json.hpp>

#include "base/duration_size.h"
#include "base/error.h"

namespace kelp::store {

namespace {

using Json = nlohmann::ordered_json;
using TimePoint = std::chrono::system_clock::time_point;

// One description of the members per struct (members(), below) serves writing and reading: an archive is called with
// a name and a member; Writer leaves out what equals the default, Reader leaves the default where a name is missing.

template <typename T>
Json value_to_json(const T& value);
template <typename T>
void value_from_json(const Json& json, T& value);

template <typename Archive>
void members(Archive& at, PortMapping& v) {
  at("host_ip", v.host_ip), at("host_port", v.host_port), at("container_port", v.container_port);
  at("protocol", v.protocol);
}
template <typename Archive>
void members(Archive& at, MountRequest& v) {
  at("type", v.type), at("source", v.source), at("target", v.target), at("options", v.options);
}
template <typename Archive>
void members(Archive& at, Ulimit& v) {
  at("name", v.name), at("soft", v.soft), at("hard", v.hard);
}
template <typename Archive>
void members(Archive& at, Resources& v) {
  at("memory", v.memory), at("memory_swap", v.memory_swap), at("memory_reservation", v.memory_reservation);
  at("memory_swappiness", v.memory_swappiness), at("cpus", v.cpus), at("cpu_shares", v.cpu_shares);
  at("cpu_quota", v.cpu_quota), at("cpu_period", v.cpu_period), at("cpu_rt_period", v.cpu_rt_period);
  at("cpu_rt_runtime", v.cpu_rt_runtime), at("cpuset_cpus", v.cpuset_cpus), at("cpuset_mems", v.cpuset_mems);
  at("pids_limit", v.pids_limit), at("blkio_weight", v.blkio_weight);
  at("blkio_weight_device", v.blkio_weight_device), at("device_read_bps", v.device_read_bps);
  at("device_write_bps", v.device_write_bps), at("device_read_iops", v.device_read_iops);
  at("device_write_iops", v.device_write_iops), at("shm_size", v.shm_size), at("oom_score_adj", v.oom_score_adj);
  at("oom_kill_disable", v.oom_kill_disable), at("unified", v.unified);
}
template <typename Archive>
void members(Archive& at, HealthCheck& v) {
  at("test", v.test), at("interval", v.interval), at("timeout", v.timeout), at("start_period", v.start_period);
  at("retries", v.retries), at("startup_test", v.startup_test), at("startup_interval", v.startup_interval);
  at("startup_timeout", v.startup_timeout), at("startup_success", v.startup_success);
  at("startup_retries", v.startup_retries), at("on_failure", v.on_failure);
  at("log_destination", v.log_destination), at("max_log_count", v.max_log_count);
  at("max_log_size", v.max_log_size);
}
template <typename Archive>
void members(Archive& at, SecretRequest& v) {
  at("name", v.name), at("id", v.id), at("env", v.env), at("target", v.target), at("uid", v.uid), at("gid", v.gid);
  at("mode", v.mode);
}

template <typename Archive>
void process_members(Archive& at, ContainerConfig& v) {
  at("name", v.name), at("hostname", v.hostname), at("labels", v.labels), at("annotations", v.annotations);
  at("command", v.command), at("entrypoint", v.entrypoint), at("env", v.env), at("unset_env", v.unset_env);
  at("unset_env_all", v.unset_env_all), at("workdir", v.workdir), at("user", v.user), at("group_add", v.group_add);
  at("umask", v.umask), at("tty", v.tty), at("interactive", v.interactive), at("init", v.init);
  at("init_path", v.init_path), at("stop_signal", v.stop_signal), at("stop_timeout", v.stop_timeout);
  at("timeout", v.timeout), at("timezone", v.timezone), at("passwd_entries", v.passwd_entries);
  at("group_entries", v.group_entries), at("passwd", v.passwd), at("env_merge", v.env_merge), at("remove", v.remove),
      at("remove_image", v.remove_image);
  at("detach", v.detach), at("restart_policy", v.restart_policy), at("restart_max", v.restart_max);
  at("health", v.health), at("detach_keys", v.detach_keys), at("sig_proxy", v.sig_proxy), at("attach", v.attach);
  at("cidfile", v.cidfile), at("pidfile", v.pidfile), at("conmon_pidfile", v.conmon_pidfile), at("systemd", v.systemd),
      at("sdnotify", v.sdnotify);
  at("depends_on", v.depends_on), at("preserve_fds", v.preserve_fds);
}

template <typename Archive>
void members(Archive& at, ContainerConfig& v) {
  process_members(at, v);
  at("userns", v.userns), at("uts", v.uts), at("ipc", v.ipc), at("pid", v.pid), at("cgroupns", v.cgroupns);
  at("uidmap", v.uidmap), at("gidmap", v.gidmap), at("subuid_name", v.subuid_name);
  at("subgid_name", v.subgid_name), at("networks", v.networks), at("ports", v.ports);
  at("publish_all", v.publish_all), at("expose", v.expose), at("dns", v.dns), at("dns_search", v.dns_search);
  at("dns_option", v.dns_option), at("add_host", v.add_host), at("no_hosts", v.no_hosts);
  at("no_hostname", v.no_hostname), at("hosts_file", v.hosts_file), at("mac_address", v.mac_address), at("ip", v.ip),
      at("ip6", v.ip6);
  at("network_aliases", v.network_aliases), at("http_proxy", v.http_proxy), at("mounts", v.mounts);
  at("volumes_from", v.volumes_from), at("read_only", v.read_only), at("read_only_tmpfs", v.read_only_tmpfs);
  at("image_volume", v.image_volume), at("rootfs", v.rootfs), at("devices", v.devices);
  at("device_cgroup_rules", v.device_cgroup_rules), at("secrets", v.secrets), at("privileged", v.privileged);
  at("cap_add", v.cap_add), at("cap_drop", v.cap_drop), at("security_opt", v.security_opt), at("sysctl", v.sysctl);
  at("ulimits", v.ulimits), at("resources", v.resources), at("cgroups", v.cgroups);
  at("cgroup_parent", v.cgroup_parent), at("log_driver", v.log_driver), at("log_options", v.log_options);
  at("platform", v.platform), at("pull_policy", v.pull_policy), at("create_command", v.create_command);
}

template <typename Archive>
void members(Archive& at, ImageDefaults& v) {
  at("env", v.env), at("entrypoint", v.entrypoint), at("cmd", v.cmd), at("volumes", v.volumes);
  at("exposed_ports", v.exposed_ports), at("workdir", v.workdir), at("user", v.user);
  at("stop_signal", v.stop_signal), at("labels", v.labels), at("health", v.health);
}
template <typename Archive>
void members(Archive& at, sys::IdRange& v) {
  at("inside", v.inside), at("outside", v.outside), at("count", v.count);
}
template <typename Archive>
void members(Archive& at, ContainerRecord& v) {
  at("id", v.id), at("name", v.name), at("created", v.created), at("image_id", v.image_id);
  at("image_name", v.image_name), at("image_digest", v.image_digest), at("map_key", v.map_key);
  at("uid_map", v.uid_map), at("gid_map", v.gid_map), at("image", v.image);
  at("layer_chain", v.layer_chain), at("config", v.config), at("anonymous_volumes", v.anonymous_volumes);
  at("ports", v.ports), at("machine", v.machine);
}
template <typename Archive>
void members(Archive& at, RunState& v) {
  at("monitor_pid", v.monitor_pid), at("monitor_start", v.monitor_start), at("pid", v.pid);
  at("pid_start", v.pid_start), at("boot", v.boot), at("cgroup", v.cgroup), at("started", v.started);
  at("restarts", v.restarts);
  at("initialized", v.initialized);
}
template <typename Archive>
void members(Archive& at, ExitRecord& v) {
  at("code", v.code), at("started", v.started), at("finished", v.finished), at("oom_killed", v.oom_killed);
  at("error", v.error), at("stopped_by_user", v.stopped_by_user), at("restarts", v.restarts);
}

struct Writer {
  Json json = Json::object();
  bool all = false;
  template <typename T>
  void operator()(const char* name, const T& value) {
    Json made = value_to_json(value);
    if (!made.is_null()) json[name] = std::move(made);
  }
};

struct Reader {
  const Json& json;
  template <typename T>
  void operator()(const char* name, T& value) {
    const auto found = json.find(name);
    if (found == json.end() || found->is_null()) return;
    try {
      value_from_json(*found, value);
    } catch (Error& error) {
      error.add_context(name);
      throw;
    } catch (const Json::exception&) {
      throw_error("{}: wrong type", name);
    }
  }
};

template <typename T>
concept Plain = std::is_arithmetic_v<T> || std::is_same_v<T, std::string>;
template <typename T>
struct is_optional : std::false_type {};
template <typename T>
struct is_optional<std::optional<T>> : std::true_type {};
template <typename T>
struct is_vector : std::false_type {};
template <typename T>
struct is_vector<std::vector<T>> : std::true_type {};

template <typename T>
Json value_to_json(const T& value) {
  if constexpr (Plain<T>) {
    return value;
  } else if constexpr (std::is_same_v<T, TimePoint>) {
    return format_rfc3339(value);
  } else if constexpr (std::is_same_v<T, std::chrono::nanoseconds>) {
    return value.count();
  } else if constexpr (std::is_same_v<T, StringMap>) {
    Json object = Json::object();
    for (const auto& [key, text] : value) object[key] = text;
    return value.empty() ? Json() : object;
  } else if constexpr (is_optional<T>::value) {
    if (!value) return Json();
    Json inner = value_to_json(*value);
    return inner.is_null() ? Json::array() : inner;  // "given, and empty": only an entrypoint can be
  } else if constexpr (is_vector<T>::value) {
    if (value.empty()) return Json();
    Json array = Json::array();
    for (const auto& entry : value) array.push_back(value_to_json(entry));
    return array;
  } else {
    Writer writer;
    T copy = value;
    members(writer, copy);
    return writer.json;
  }
}

template <typename T>
void value_from_json(const Json& json, T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    value = json.get_ref<const Json::boolean_t&>();
  } else if constexpr (std::is_integral_v<T>) {
    if (!json.is_number_integer()) throw_error("not an integer");
    const auto wide = json.get<std::int64_t>();
    if (json.is_number_unsigned() ? json.get<std::uint64_t>() > std::numeric_limits<T>::max()
                                  : wide < static_cast<std::int64_t>(std::numeric_limits<T>::min()))
      throw_error("out of range");
    value = json.is_number_unsigned() ? static_cast<T>(json.get<std::uint64_t>()) : static_cast<T>(wide);
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!json.is_number()) throw_error("not a number");
    value = json.get<T>();
  } else if constexpr (std::is_same_v<T, std::string>) {
    value = json.get_ref<const std::string&>();
  } else if constexpr (std::is_same_v<T, TimePoint>) {
    value = parse_rfc3339(json.get_ref<const std::string&>());
  } else if constexpr (std::is_same_v<T, std::chrono::nanoseconds>) {
    value = std::chrono::nanoseconds(json.get<std::int64_t>());
  } else if constexpr (std::is_same_v<T, StringMap>) {
    if (!json.is_object()) throw_error("not an object");
    value.clear();
    for (const auto& [key, text] : json.items()) value[key] = text.template get_ref<const std::string&>();
  } else if constexpr (is_optional<T>::value) {
    value.emplace();
    value_from_json(json, *value);
  } else if constexpr (is_vector<T>::value) {
    if (!json.is_array()) throw_error("not an array");
    value.clear();
    for (const Json& entry : json) value_from_json(entry, value.emplace_back());
  } else {
    if (!json.is_object()) throw_error("not an object");
    Reader reader{json};
    members(reader, value);
  }
}

/// Leaves out what a default-made config has too: records stay short, and start-up pays for what was asked.
template <typename T>
void drop_defaults(Json& json, const T& defaults) {
  const Json plain = value_to_json(defaults);
  for (const auto& [key, value] : plain.items()) {
    const auto found = json.find(key);
    if (found != json.end() && *found == value) json.erase(key);
  }
}

template <typename T>
std::string print(const T& value) {
  Json json = Json::object();
  json["schema"] = T::kSchema;
  Json body = value_to_json(value);
  if constexpr (std::is_same_v<T, ContainerRecord>) {
    Json& config = body["config"];
    if (config.contains("resources")) {
      drop_defaults(config["resources"], Resources{});
      if (config["resources"].empty()) config.erase("resources");
    }
    drop_defaults(config, ContainerConfig{});
    drop_defaults(body["image"], ImageDefaults{});
  }
  json.update(body);
  // Names and labels may hold any bytes; a replacement character beats a record that cannot be written.
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

/// Records had an object of the values of --env-merge, which has no order.
void list_env_merge(Json& json) {
  const auto config = json.find("config");
  if (config == json.end() || !config->is_object()) return;
  const auto merge = config->find("env_merge");
  if (merge == config->end() || !merge->is_object()) return;
  Json list = Json::array();
  for (const auto& [key, value] : merge->items()) list.push_back(key + "=" + value.get_ref<const std::string&>());
  *merge = std::move(list);
}

template <typename T>
T parse(std::string_view text, std::string_view origin) {
  Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) throw_error("{}: not a JSON object (damaged)", origin);
  const auto schema = json.find("schema");
  if (schema == json.end() || !schema->is_number_integer()) throw_error("{}: no schema version (damaged)", origin);
  if (schema->get<std::int64_t>() > T::kSchema)
    throw NewerRecord(fmt::format("{}: written by a newer kelp (schema {}, this one knows {})", origin,
                                  schema->get<std::int64_t>(), T::kSchema));
  T value;
  try {
    if constexpr (std::is_same_v<T, ContainerRecord>) list_env_merge(json);
    Reader reader{json};
    members(reader, value);
  } catch (Error& error) {
    error.add_context(origin);
    throw;
  }
  return value;
}

}  // namespace

std::string to_json(const ContainerRecord& record) { return print(record); }
ContainerRecord record_from_json(std::string_view text, std::string_view origin) {
  return parse<ContainerRecord>(text, origin);
}
std::string to_json(const RunState& state) { return print(state); }
RunState run_state_from_json(std::string_view text, std::string_view origin) { return parse<RunState>(text, origin); }
std::string to_json(const ExitRecord& exit) { return print(exit); }
ExitRecord exit_record_from_json(std::string_view text, std::string_view origin) {
  return parse<ExitRecord>(text, origin);
}

}  // namespace kelp::store
