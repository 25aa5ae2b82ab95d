#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/program_path.h"
#include "base/text.h"
#include "cgroup/cgroup.h"
#include "engine/context.h"
#include "engine/host.h"
#include "engine/image_program.h"
#include "engine/inspect.h"
#include "engine/make_spec.h"
#include "engine/package_owner.h"
#include "engine/storage_probe.h"
#include "store/containers.h"
#include "store/images.h"
#include "sys/capability.h"
#include "sys/lock.h"
#include "sys/procfs.h"
#include "sys/spawn.h"

namespace kelp::engine {
namespace {

using Json = OrderedJson;

Json ranges_json(const sys::IdRanges& ranges) {
  Json list = Json::array();
  for (const auto& range : ranges) {
    list.push_back({{"container_id", range.inside}, {"host_id", range.outside}, {"size", range.count}});
  }
  return list;
}

/// "NAME=value" of /etc/os-release, quotes taken off.
std::string release_value(std::string_view text, std::string_view key) {
  for (const auto& line : split(text, '\n')) {
    if (!starts_with(line, key) || line.size() <= key.size() || line[key.size()] != '=') continue;
    std::string value = line.substr(key.size() + 1);
    if (value.size() >= 2 && value.front() == '"' && value.back() == '"') value = value.substr(1, value.size() - 2);
    return value;
  }
  return "unknown";
}

Json distribution_json() {
  const std::string text = sys::read_small_file("/etc/os-release").value_or("");
  Json json;
  json["distribution"] = release_value(text, "ID");
  json["version"] = release_value(text, "VERSION_ID");
  if (const std::string name = release_value(text, "VERSION_CODENAME"); name != "unknown") json["codename"] = name;
  return json;
}

/// Kibibytes of a line of /proc/meminfo, as bytes.
std::uint64_t memory_value(std::string_view text, std::string_view key) {
  for (const auto& line : split(text, '\n')) {
    if (!starts_with(line, key)) continue;
    const size_t digits = line.find_first_of("0123456789");
    if (digits == std::string::npos) continue;
    const size_t end = line.find(' ', digits);
    return static_cast<std::uint64_t>(to_int(line.substr(digits, end - digits), 0).value_or(0)) * 1024;
  }
  return 0;
}

std::string uptime_text() {
  const double seconds = std::strtod(sys::try_read_file("/proc/uptime").value_or("0").c_str(), nullptr);
  const auto whole = static_cast<long>(seconds);
  return fmt::format("{}h {}m {:.2f}s", whole / 3600, whole / 60 % 60, seconds - static_cast<double>(whole / 60 * 60));
}

Json cgroup_json(Context& context, Json& host) {
  cgroup::Place place;
  try {
    place = cgroup::probe(context.global.cgroup_manager);
  } catch (const Error& error) {
    place.reason = error.message();
    place.hint = error.hint();
  }
  const std::string& mount = cgroup::v2_mount();
  host["cgroupManager"] = cgroup::manager_name(place.manager);
  host["cgroupVersion"] = mount == "/sys/fs/cgroup" ? "v2" : "v1";
  host["cgroupControllers"] = place.controllers;
  Json level = {{"limits", place.manager != cgroup::Manager::none}};
  if (!place.reason.empty()) level["reason"] = place.reason;
  if (!place.hint.empty()) level["hint"] = place.hint;
  return level;
}

Json userns_json(Context& context) {
  const UserNamespaceState state = user_namespace_state(context.host());
  Json json;
  json["level"] = level_name(state.level);
  if (!state.why.empty()) json["reason"] = state.why;
  if (!state.hint.empty()) json["hint"] = state.hint;
  return json;
}

/// storage  is given how root file systems are put together, and why so.
Json store_json(Context& context, Json& storage) {
  const auto& layout = context.layout;
  Json json;
  Json numbers = {{"number", 0}, {"paused", 0}, {"running", 0}, {"stopped", 0}};
  const auto records = store::list(layout);
  numbers["number"] = records.size();
  for (const auto& record : records) {
    switch (store::status(layout, record).status) {
      case store::Status::running:
      case store::Status::stopping:
        numbers["running"] = numbers["running"].get<int>() + 1;
        break;
      case store::Status::paused:
        numbers["paused"] = numbers["paused"].get<int>() + 1;
        break;
      default:
        numbers["stopped"] = numbers["stopped"].get<int>() + 1;
    }
  }
  json["configFile"] = "";
  json["containerStore"] = std::move(numbers);
  json["graphDriverName"] = "overlay";
  json["graphOptions"] = Json::object();
  json["graphRoot"] = layout.data;
  const StorageFacts facts = probe_storage(context);
  json["graphRootAllocated"] = facts.total;
  json["graphRootUsed"] = facts.total - facts.free;
  const std::string& problem = facts.overlay_problem;
  json["graphStatus"] = {{"Backing Filesystem", facts.filesystem},
                         {"Native Overlay Diff", problem.empty() ? "true" : "false"}};
  storage = {{"driver", facts.driver},
             {"reason", problem.empty() ? "a native overlay with extended attributes of the user works in graphRoot"
                                        : "no native overlay in graphRoot: " + problem}};
  if (facts.driver == "copy") {
    storage["reason"] =
        fmt::format("no native overlay in graphRoot: {}; fuse-overlayfs {}", problem, fuse_problem(facts));
    storage["hint"] = "every container copies its image: `kelp doctor` says what mends that";
  }
  const char* scratch = std::getenv("TMPDIR");
  json["imageCopyTmpDir"] = scratch != nullptr && *scratch != '\0' ? scratch : "/var/tmp";
  json["imageStore"] = {{"number", store::list_images(layout).size()}};
  json["runRoot"] = layout.run;
  json["volumePath"] = layout.volumes();
  return json;
}

std::string runtime_version(const std::string& path) {
  if (path.empty()) return "";
  sys::SpawnRequest request;
  request.path = path;
  request.argv = {path, "--version"};
  const auto result = sys::run_captured(request);
  return result.out.substr(0, result.out.find('\n'));
}

std::string runtime_path(Context& context) {
  const std::string& wanted = context.global.runtime;
  try {
    if (wanted.empty()) return own_program("kelp-oci");
  } catch (const Error&) {
    return "";
  }
  return wanted.find('/') == std::string::npos ? find_in_path(wanted) : wanted;
}

std::string program_or_nothing(const char* name) {
  try {
    return own_program(name);
  } catch (const Error&) {
    return "";
  }
}

/// Names that a container has when nothing else was asked for.
std::string default_capabilities() {
  const std::uint64_t held = wanted_capabilities({}, sys::known_caps());
  std::string names;
  for (int bit = 0; bit < 64; ++bit)
    if ((held >> static_cast<unsigned>(bit) & 1U) != 0)
      names += (names.empty() ? "" : ",") + std::string(sys::capability_name(bit));
  return names;
}

/// Since the boot, in percent.
Json cpu_use() {
  const std::string text = sys::try_read_file("/proc/stat").value_or("");
  double values[8] = {}, total = 0;
  std::size_t count = 0;
  for (const auto& word : split(text.substr(0, text.find('\n')), ' ')) {
    const auto number = to_int(word, 0);
    if (number && count < std::size(values)) values[count++] = static_cast<double>(*number);
  }
  for (const double value : values) total += value;
  const auto percent = [&](double part) { return total > 0 ? std::round(part / total * 10000) / 100 : 0.0; };
  return {{"idlePercent", percent(values[3])},
          {"systemPercent", percent(values[2])},
          {"userPercent", percent(values[0] + values[1])}};
}

/// registries.conf, which only kelp-image reads: the registries that short names are looked for in, and each rule.
Json registries_json(Context& context) {
  const ImageCall call{.arguments = {"registries"}, .plain = true};
  const Json answer = Json::parse(run_image_program(context, call), nullptr, false);
  return answer.is_object() && answer.contains("registries") ? answer["registries"] : Json::object();
}

struct Rename {
  const char *json, *go;
};
// Where Go's field is not the JSON name with a capital letter.
constexpr Rename kRenames[] = {
    {"cgroupVersion", "CgroupsVersion"},
    {"cgroupControllers", "CgroupControllers"},
    {"cpus", "CPUs"},
    {"idMappings", "IDMappings"},
    {"ociRuntime", "OCIRuntime"},
    {"os", "OS"},
    {"gidmap", "GIDMap"},
    {"uidmap", "UIDMap"},
    {"slirp4netns", "Slirp4NetNS"},
};

}  // namespace

std::string host_architecture() { return spec::host_platform().architecture; }

Json exported_names(const Json& facts) {
  if (facts.is_array()) {
    Json list = Json::array();
    for (const Json& item : facts) list.push_back(exported_names(item));
    return list;
  }
  if (!facts.is_object()) return facts;
  Json out = Json::object();
  for (const auto& entry : facts.items()) {
    std::string key = entry.key();
    if (!key.empty() && key[0] >= 'a' && key[0] <= 'z') key[0] = static_cast<char>(key[0] - 'a' + 'A');
    for (const Rename& rename : kRenames) {
      if (entry.key() == rename.json) key = rename.go;
    }
    out[key] = entry.key() == "registries" ? entry.value() : exported_names(entry.value());  // names of the user's
  }
  return out;
}

Json host_info(Context& context) {
  store::prepare(context.layout);
  const HostFacts& facts = context.host();
  const std::string memory = sys::try_read_file("/proc/meminfo").value_or("");
  Json host;
  host["arch"] = host_architecture();
  host["buildahVersion"] = "";  // podman's key: there is no Buildah in kelp
  Json limits = cgroup_json(context, host);
  const std::string monitor = program_or_nothing("kelp-monitor");
  const std::string runtime = runtime_path(context);
  const std::string& slirp = facts.slirp4netns.get().path;
  auto packages = package_owners({monitor, runtime, slirp});
  host["conmon"] = {{"package", packages[monitor]}, {"path", monitor}, {"version", runtime_version(monitor)}};
  host["cpuUtilization"] = cpu_use();
  host["cpus"] = facts.cpus.get();
  host["distribution"] = distribution_json();
  host["eventLogger"] = "file";
  host["hostname"] = facts.host_name.get();
  const UserNamespaceFacts& userns = facts.userns.get();
  host["idMappings"] = {{"gidmap", ranges_json(userns.maps.gids)}, {"uidmap", ranges_json(userns.maps.uids)}};
  host["kernel"] = facts.kernel.get().release;
  host["linkmode"] = "dynamic";
  host["logDriver"] = "k8s-file";
  host["memFree"] = memory_value(memory, "MemFree:");
  host["memTotal"] = memory_value(memory, "MemTotal:");
  host["networkBackend"] = "slirp4netns";
  host["ociRuntime"] = {{"name", runtime.substr(runtime.rfind('/') + 1)},
                        {"package", packages[runtime]},
                        {"path", runtime},
                        {"version", runtime_version(runtime)}};
  host["os"] = "linux";
  host["remoteSocket"] = {{"path", ""}, {"exists", false}};
  host["security"] = {{"apparmorEnabled", facts.security.get().apparmor},
                      {"capabilities", default_capabilities()},
                      {"rootless", facts.uid != 0},
                      {"seccompEnabled", true},
                      {"seccompProfilePath", ""},
                      {"selinuxEnabled", facts.security.get().selinux}};
  host["serviceIsRemote"] = false;
  host["slirp4netns"] = {
      {"executable", slirp}, {"package", packages[slirp]}, {"version", facts.slirp4netns_version.get()}};
  host["swapFree"] = memory_value(memory, "SwapFree:");
  host["swapTotal"] = memory_value(memory, "SwapTotal:");
  host["uptime"] = uptime_text();
  // kelp's own: at which level it works here, and what would lift it.
  Json storage;
  Json places = store_json(context, storage);
  host["levels"] = {{"userNamespace", userns_json(context)},
                    {"cgroups", std::move(limits)},
                    {"storage", std::move(storage)},
                    {"ownProc", facts.trial.get().proc == 0},
                    {"tun", facts.tun.get()}};

  Json json;
  json["host"] = std::move(host);
  json["plugins"] = {{"log", {"k8s-file", "json-file", "none", "passthrough"}},
                     {"network", {"slirp4netns", "host", "none", "container", "ns"}},
                     {"volume", {"local"}}};
  json["registries"] = registries_json(context);
  json["store"] = std::move(places);
  return json;
}

}  // namespace kelp::engine
