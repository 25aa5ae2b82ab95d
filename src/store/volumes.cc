#include "store/volumes.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "store/containers.h"
#include "sys/directory.h"
#include "sys/lock.h"
#include "sys/safe_path.h"
#include "sys/xattr_tree.h"

namespace kelp::store {

namespace {

using Json = nlohmann::ordered_json;

std::string to_json(const VolumeRecord& volume) {
  Json json = {{"schema", VolumeRecord::kSchema},
               {"name", volume.name},
               {"driver", volume.driver},
               {"created", format_rfc3339(volume.created)}};
  if (!volume.labels.empty()) json["labels"] = volume.labels;
  if (!volume.options.empty()) json["options"] = volume.options;
  if (volume.anonymous) json["anonymous"] = true;
  if (volume.uid) json["uid"] = *volume.uid;
  if (volume.gid) json["gid"] = *volume.gid;
  json["needs_copy_up"] = volume.needs_copy_up;
  json["machine"] = volume.machine;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

VolumeRecord from_json(const std::string& text, const std::string& origin) try {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) throw_error("{}: not a JSON object (damaged)", origin);
  if (json.value("schema", 0) > VolumeRecord::kSchema) throw_error("{}: written by a newer kelp", origin);
  VolumeRecord volume;
  volume.name = json.at("name").get<std::string>();
  volume.driver = json.value("driver", "local");
  volume.created = parse_rfc3339(json.at("created").get<std::string>());
  volume.labels = json.value("labels", StringMap{});
  volume.options = json.value("options", StringMap{});
  volume.anonymous = json.value("anonymous", false);
  if (json.contains("uid")) volume.uid = json["uid"].get<unsigned>();
  if (json.contains("gid")) volume.gid = json["gid"].get<unsigned>();
  volume.needs_copy_up = json.value("needs_copy_up", false);
  volume.machine = json.value("machine", "");
  return volume;
} catch (const Json::exception& error) {
  throw_error("{}: damaged: {}", origin, error.what());
}

/// Options of the local driver: type, device and o, as mount(8) would take them.
void apply_options(VolumeRecord& volume) {
  for (const auto& [key, value] : volume.options) {
    if (key == "type" || key == "device") continue;
    if (key != "o")
      throw_usage("unknown option {} of the volume driver local: type, device, o are known", kelp::quoted(key));
    for (const std::string& part : split(value, ',')) {
      const std::string_view text = part;
      if (starts_with(text, "uid=") || starts_with(text, "gid=")) {
        const auto id = to_int(text.substr(4), 0, 4294967294);
        if (!id) throw_usage("volume option {}: not an id", kelp::quoted(part));
        (text.front() == 'u' ? volume.uid : volume.gid) = static_cast<unsigned>(*id);
      }
    }
  }
  const auto type = volume.options.find("type");
  const auto device = volume.options.find("device");
  const auto o = volume.options.find("o");
  const std::string type_name = type == volume.options.end() ? "" : type->second;
  const bool bind = type_name == "bind" || type_name == "none" ||
                    (o != volume.options.end() && ("," + o->second + ",").find("bind,") != std::string::npos);
  if (bind) {
    if (device == volume.options.end() || !starts_with(device->second, "/"))
      throw_usage("a bind volume needs the absolute path of a directory as option device");
    struct stat info {};
    if (::stat(device->second.c_str(), &info) < 0) throw_errno("volume device {}", device->second);
    volume.needs_copy_up = false;
  } else if (!type_name.empty() && type_name != "tmpfs") {
    Error error(fmt::format("volume {}: a volume of type {} needs a mount as root", kelp::quoted(volume.name),
                            kelp::quoted(type_name)));
    error.with_hint("mount it on the host and use a bind mount or a volume with type=none,o=bind,device=PATH");
    throw error;
  }
}

void derive(const Layout& layout, VolumeRecord& volume) {
  volume.mountpoint = layout.volume(volume.name) + "/_data";
  const auto device = volume.options.find("device");
  if (device != volume.options.end() && starts_with(device->second, "/")) volume.mountpoint = device->second;
}

std::optional<VolumeRecord> read_volume(const Layout& layout, const std::string& name) {
  const std::string path = layout.volume(name) + "/volume.json";
  const auto text = sys::read_small_file(path);
  if (!text) return std::nullopt;
  VolumeRecord volume = from_json(*text, path);
  volume.name = name;
  derive(layout, volume);
  return volume;
}

/// An error of the contents' maker is not one of the draft, which would be tried again.
void fill_draft(const std::function<void(const std::string& data)>& fill, const std::string& data) {
  try {
    fill(data);
  } catch (const SysError& error) {
    throw Error(error.message()).with_hint(error.hint());
  }
}

/// The draft is made in the trash, where it is swept should we be killed, and held by a lock until it has its name:
/// whoever empties the trash leaves it alone. One that comes between mkdir and flock takes it, and we start again.
/// false: the name is taken.
bool publish_volume(const Layout& layout, const VolumeRecord& volume,
                    const std::function<void(const std::string& data)>& fill) {
  const std::string path = layout.volume(volume.name);
  for (int tries = 0; tries < 100; ++tries) {
    const std::string draft = layout.trash() + "/volume-" + new_container_id();
    try {
      sys::mkdirs(draft, 0700);
      const Fd made(::open(draft.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      if (!made) throw_errno("open {}", draft);
      const auto held = sys::FileLock::try_exclusive_at(made.get());
      if (!held) continue;
      sys::replace_file(draft + "/volume.json", to_json(volume));
      if (::mkdir((draft + "/_data").c_str(), 0755) < 0) throw_errno("make {}/_data", draft);
      if (fill) fill_draft(fill, draft + "/_data");
      // rename(2) replaces only an empty directory, and a published volume is never empty: so this is the reservation.
      if (::rename(draft.c_str(), path.c_str()) == 0) return true;
      if (errno != ENOTEMPTY && errno != EEXIST) throw_errno("publish volume {}", volume.name);
      sys::remove_tree(draft);
      return false;
    } catch (const Error& error) {
      const auto* system = dynamic_cast<const SysError*>(&error);
      if (system != nullptr && system->code() == ENOENT) continue;
      try {
        sys::remove_tree(draft);
      } catch (const Error& left) {
        log::debug("{}", left.message());  // it is in the trash
      }
      throw;
    }
  }
  throw_error("volume {}: its draft was removed again and again", volume.name);
}

}  // namespace

VolumeRecord create_volume(const Layout& layout, const VolumeRequest& request) {
  if (request.driver != "local" && !request.driver.empty())
    throw_usage("volume driver {} is not known: only local is", kelp::quoted(request.driver));
  VolumeRecord volume;
  volume.name = request.name.empty() ? new_container_id() : request.name;
  check_name(volume.name, "volume");
  volume.labels = request.labels;
  volume.options = request.options;
  volume.anonymous = request.anonymous;
  volume.created = request.created.value_or(std::chrono::system_clock::now());
  volume.machine = machine_id();
  if (request.fill) volume.needs_copy_up = false;
  apply_options(volume);
  if (request.uid) volume.uid = request.uid;
  if (request.gid) volume.gid = request.gid;
  derive(layout, volume);
  if (publish_volume(layout, volume, request.fill)) return volume;
  auto existing = read_volume(layout, volume.name);
  if (request.ignore_if_exists && existing) return std::move(*existing);
  throw_usage("volume with name {} already exists: volume already exists", volume.name);
}

std::optional<VolumeRecord> find_volume(const Layout& layout, std::string_view name, bool prefix) {
  if (name.empty() || name.front() == '.' || name.find('/') != std::string_view::npos) return std::nullopt;
  if (auto volume = read_volume(layout, std::string(name))) return volume;
  if (!prefix) return std::nullopt;
  std::string match;
  for (const std::string& entry : volume_names(layout)) {
    if (!starts_with(entry, name)) continue;
    if (!match.empty()) throw_usage("more than one result for volume name {}", kelp::quoted(name));
    match = entry;
  }
  return match.empty() ? std::nullopt : read_volume(layout, match);
}

VolumeRecord get_volume(const Layout& layout, std::string_view name) {
  if (auto volume = find_volume(layout, name, true)) return std::move(*volume);
  UsageError error(fmt::format("no volume with name {} found: no such volume", kelp::quoted(name)));
  const std::string near = nearest(name, volume_names(layout));
  if (!near.empty()) error.with_hint(fmt::format("did you mean {}?", kelp::quoted(std::string_view(near))));
  throw error;
}

Strings volume_names(const Layout& layout) { return sys::names_in(layout.volumes()); }

Strings adopt_volumes(const Layout& layout) {
  Strings adopted;
  for (const std::string& name : volume_names(layout)) {
    struct stat info {};
    const std::string path = layout.volume(name);
    if (::access((path + "/volume.json").c_str(), F_OK) == 0) continue;
    if (::lstat((path + "/_data").c_str(), &info) < 0 || !S_ISDIR(info.st_mode)) continue;
    check_name(name, "volume");
    VolumeRecord volume;
    volume.name = name;
    volume.created = std::chrono::system_clock::now();
    volume.machine = machine_id();
    volume.needs_copy_up = false;  // it has its contents
    update_volume(layout, volume);
    adopted.push_back(name);
  }
  return adopted;
}

std::vector<VolumeRecord> list_volumes(const Layout& layout) {
  std::vector<VolumeRecord> found;
  for (const std::string& name : volume_names(layout)) {
    try {
      if (auto volume = read_volume(layout, name)) found.push_back(std::move(*volume));
    } catch (const Error& error) {
      log::warn("volume {} is left out: {}", name, error.what());
    }
  }
  return found;
}

void update_volume(const Layout& layout, const VolumeRecord& volume) {
  sys::replace_file(layout.volume(volume.name) + "/volume.json", to_json(volume));
}

Strings volume_users(const std::vector<ContainerRecord>& containers, std::string_view name) {
  Strings users;
  for (const ContainerRecord& record : containers)
    for (const MountRequest& mount : record.config.mounts)
      if (mount.type == "volume" && mount.source == name) {
        users.push_back(record.id);
        break;
      }
  return users;
}

Strings volume_users(const Layout& layout, std::string_view name) { return volume_users(list(layout), name); }

void remove_volume(const Layout& layout, const VolumeRecord& volume, bool ignore_users) {
  if (!ignore_users) {
    const Strings users = volume_users(layout, volume.name);
    if (!users.empty()) {
      UsageError error(fmt::format("volume {} is being used by the following container(s): {}: volume is being used",
                                   volume.name, join(users, ", ")));
      error.with_hint("kelp volume rm --force removes the containers too");
      throw error;
    }
  }
  const std::string target = layout.trash() + "/volume-" + new_container_id();
  if (::rename(layout.volume(volume.name).c_str(), target.c_str()) < 0) {
    if (errno == ENOENT) throw_usage("no volume with name {} found: no such volume", kelp::quoted(volume.name));
    throw_errno("move volume {} to the trash", volume.name);
  }
}

}  // namespace kelp::store
