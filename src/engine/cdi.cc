#include "engine/cdi.h"

#include <sys/stat.h>

#include <algorithm>
#include <optional>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"
#include "engine/oci_hooks.h"
#include "sys/directory.h"
#include "sys/lock.h"
#include "sys/safe_path.h"

namespace kelp::engine {
namespace {

using Json = nlohmann::json;
using store::Strings;

/// A file that describes the devices of one kind (VENDOR/CLASS).
struct CdiFile {
  std::string path;
  size_t directory = 0;  ///< place of its directory: a higher one wins
  std::string kind;
  Json content;
};

struct CdiFiles {
  Strings directories;
  std::vector<CdiFile> files;
  Strings unread;  ///< why, each with its path
};

std::string text_of(const Json& from, const char* key) {
  const auto found = from.find(key);
  return found == from.end() ? std::string() : found->get<std::string>();
}

std::string absolute(const std::string& path, const char* what) {
  if (path.empty() || path.front() != '/') throw_error("{} {} is not absolute", what, kelp::quoted(path));
  return sys::clean_path(path);
}

CdiFile read_file(const std::string& path, size_t directory) {
  const auto text = sys::read_small_file(path);
  if (!text) throw_error("it is gone");
  CdiFile file{path, directory, "", Json::parse(*text)};
  const std::string version = file.content.at("cdiVersion").get<std::string>();
  if (!starts_with(version, "0.") && !starts_with(version, "1.")) throw_error("CDI version {} is not known", version);
  file.kind = file.content.at("kind").get<std::string>();
  return file;
}

CdiFiles read_directories(const Strings& directories) {
  CdiFiles found{directories, {}, {}};
  for (size_t i = 0; i < directories.size(); ++i) {
    for (const std::string& name : sys::names_in(directories[i])) {  // most hosts have none of them
      const std::string path = directories[i] + "/" + name;
      if (ends_with(name, ".yaml") || ends_with(name, ".yml"))
        found.unread.push_back(path + " is YAML, kelp reads JSON (nvidia-ctk cdi generate --format=json)");
      if (!ends_with(name, ".json")) continue;
      try {
        found.files.push_back(read_file(path, i));
      } catch (const std::exception& error) {  // of JSON, or our own: a damaged file is no obstacle for other devices
        found.unread.push_back(path + ": " + printable(error.what()));
      }
    }
  }
  return found;
}

/// What is said later replaces what was said earlier of the same place.
template <typename T, typename Same>
void put(std::vector<T>& list, T added, const Same& same) {
  std::erase_if(list, same);
  list.push_back(std::move(added));
}

/// The node of the host is bound, so its type, numbers, owner and mode are its own, whatever the file says of them.
void add_node(const Json& from, CdiEdits& edits) {
  SpecInput::BoundDevice node;
  node.target = absolute(from.at("path").get<std::string>(), "device node");
  const std::string host = text_of(from, "hostPath");
  node.source = host.empty() ? node.target : absolute(host, "device node");
  node.access = text_of(from, "permissions");
  if (node.access.empty()) node.access = "rwm";
  if (node.access.find_first_not_of("rwm") != std::string::npos)
    throw_error("permissions {} of {}: not letters of rwm", kelp::quoted(node.access), node.target);
  struct stat info {};
  if (::stat(node.source.c_str(), &info) < 0) throw_errno("stat {}", node.source);
  if (!S_ISCHR(info.st_mode) && !S_ISBLK(info.st_mode)) throw_error("{} is not a device node", node.source);
  put(edits.devices, node, [&](const SpecInput::BoundDevice& other) { return other.target == node.target; });
}

void add_mount(const Json& from, CdiEdits& edits) {
  spec::Mount mount;
  mount.destination = absolute(from.at("containerPath").get<std::string>(), "containerPath");
  mount.source = from.at("hostPath").get<std::string>();
  mount.type = text_of(from, "type");
  mount.options = from.value("options", Strings{});
  if (mount.type.empty() || mount.type == "none") mount.type = "bind";
  if (mount.type == "bind") {
    mount.source = absolute(mount.source, "hostPath");
    const auto is_bind = [](const std::string& option) { return option == "bind" || option == "rbind"; };
    if (std::none_of(mount.options.begin(), mount.options.end(), is_bind)) mount.options.push_back("rbind");
  }
  put(edits.mounts, mount, [&](const spec::Mount& other) { return other.destination == mount.destination; });
}

void add_hook(const Json& from, CdiEdits& edits) {
  spec::Hook hook;
  hook.path = absolute(from.at("path").get<std::string>(), "hook");
  hook.args = from.value("args", Strings{});
  hook.env = from.value("env", Strings{});
  if (const auto timeout = from.find("timeout"); timeout != from.end()) hook.timeout = timeout->get<int>();
  hooks_of_stage(edits.hooks, from.at("hookName").get<std::string>()).push_back(std::move(hook));
}

void add_edits(const Json& from, CdiEdits& edits) {
  if (!from.is_object()) throw_error("the edits are no object");
  for (const auto& [key, value] : from.items()) {
    if (key == "intelRdt" || key == "netDevices") throw_error("the edit {} needs root", key);
    if (!value.is_array()) throw_error("{} is no list", kelp::quoted(key));
    if (key == "env") {
      for (const Json& line : value) edits.env.push_back(line.get<std::string>());
    } else if (key == "deviceNodes") {
      for (const Json& node : value) add_node(node, edits);
    } else if (key == "mounts") {
      for (const Json& mount : value) add_mount(mount, edits);
    } else if (key == "hooks") {
      for (const Json& hook : value) add_hook(hook, edits);
    } else if (key == "additionalGids") {
      for (const Json& group : value) edits.groups.push_back(group.get<std::uint32_t>());
    } else {
      throw_error("the edit {} is not known", kelp::quoted(key));
    }
  }
}

const Json* device_of(const CdiFile& file, const std::string& name) {
  const auto devices = file.content.find("devices");
  if (devices == file.content.end() || !devices->is_array()) return nullptr;
  for (const Json& device : *devices)
    if (device.is_object() && device.value("name", Json()) == name) return &device;
  return nullptr;
}

/// The file that speaks of the device, and wins.
const CdiFile& file_of(const CdiFiles& found, const std::string& kind, const std::string& name) {
  const CdiFile* best = nullptr;
  const CdiFile* rival = nullptr;
  for (const CdiFile& file : found.files) {
    if (file.kind != kind || device_of(file, name) == nullptr) continue;
    rival = best != nullptr && best->directory == file.directory ? best : nullptr;
    best = &file;  // they come in the order of their directories
  }
  if (rival != nullptr)
    throw_usage("CDI device {}={}: both {} and {} describe it", kind, name, rival->path, best->path);
  if (best != nullptr) return *best;
  UsageError error(fmt::format("CDI device {}: no file in {} describes it", kelp::quoted(kind + "=" + name),
                               join(found.directories, ", ")));
  if (!found.unread.empty()) error.with_hint(join(found.unread, "; "));
  throw error;
}

void merge(std::vector<spec::Hook>& into, const std::vector<spec::Hook>& from) {
  into.insert(into.end(), from.begin(), from.end());
}

}  // namespace

bool is_cdi_name(std::string_view text) {
  const size_t slash = text.find('/');
  const size_t equals = text.find('=');
  return slash != std::string_view::npos && slash > 0 && equals != std::string_view::npos && equals > slash + 1 &&
         equals + 1 < text.size() && text.find('/', slash + 1) == std::string_view::npos;
}

CdiEdits find_cdi_edits(const Strings& directories, const Strings& names) {
  CdiEdits edits;
  std::optional<CdiFiles> found;
  std::vector<const CdiFile*> used;  // what a file says for all its devices is said once, and first
  for (const std::string& text : names) {
    if (!is_cdi_name(text)) continue;
    if (!found) found = read_directories(directories.empty() ? Strings{"/etc/cdi", "/var/run/cdi"} : directories);
    const size_t equals = text.find('=');
    const CdiFile& file = file_of(*found, text.substr(0, equals), text.substr(equals + 1));
    try {
      const auto common = file.content.find("containerEdits");
      if (common != file.content.end() && std::find(used.begin(), used.end(), &file) == used.end()) {
        used.push_back(&file);
        add_edits(*common, edits);
      }
      const Json& device = *device_of(file, text.substr(equals + 1));
      if (const auto own = device.find("containerEdits"); own != device.end()) add_edits(*own, edits);
    } catch (const std::exception& error) {  // of JSON, or our own
      throw_usage("--device {}: {}: {}", text, file.path, printable(error.what()));
    }
  }
  return edits;
}

void apply_cdi_edits(const CdiEdits& edits, spec::RuntimeConfig& config) {
  for (const std::string& line : edits.env) {
    const std::string name = line.substr(0, line.find('=')) + "=";
    std::erase_if(config.process->env, [&](const std::string& other) { return starts_with(other, name); });
    config.process->env.push_back(line);
  }
  auto& groups = config.process->user.additional_gids;
  for (const std::uint32_t group : edits.groups)
    if (std::find(groups.begin(), groups.end(), group) == groups.end()) groups.push_back(group);
  merge(config.hooks.prestart, edits.hooks.prestart);
  merge(config.hooks.create_runtime, edits.hooks.create_runtime);
  merge(config.hooks.create_container, edits.hooks.create_container);
  merge(config.hooks.start_container, edits.hooks.start_container);
  merge(config.hooks.poststart, edits.hooks.poststart);
  merge(config.hooks.poststop, edits.hooks.poststop);
}

}  // namespace kelp::engine
