#include <algorithm>
#include <array>

#include "base/csv.h"
#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"
#include "engine/mounts.h"
#include "sys/safe_path.h"

// The pure half of mounts: texts of -v, --mount and --tmpfs to requests, a request to a mount of the runtime config.
namespace kelp::engine {

namespace {

using store::MountRequest;
using store::Strings;

constexpr std::array kPropagations = {"shared",  "slave",  "private",  "unbindable",
                                      "rshared", "rslave", "rprivate", "runbindable"};
constexpr std::array kMountFlags = {"ro",    "rw",    "exec",    "noexec",   "suid",       "nosuid",   "dev",
                                    "nodev", "atime", "noatime", "diratime", "nodiratime", "relatime", "strictatime"};
// Meant for the engine, not for the kernel.
constexpr std::array kEngineOptions = {"z", "Z",     "U",     "copy",           "nocopy",
                                       "O", "idmap", "chown", "relabel=shared", "relabel=private"};
// Docker's, for systems where containers run in a machine of their own: there is nothing to be consistent with.
constexpr std::array kConsistencies = {"cached", "delegated", "consistent"};

template <typename List>
bool is_in(const List& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

void check_target(const std::string& target, std::string_view text) {
  if (target.empty() || target.front() != '/')
    throw_usage("mount {}: {} must be an absolute path in the container", quoted(text), quoted(target));
  if (sys::clean_path(target) == "/")
    throw_usage("mount {}: the container's root cannot be mounted over", quoted(text));
}

/// The directory of upperdir= and workdir=; "" = another option.
std::string upper_option(std::string_view option) {
  for (const char* key : {"upperdir=", "workdir="})
    if (starts_with(option, key)) return std::string(option.substr(std::string_view(key).size()));
  return "";
}

/// O with upperdir= and workdir=: what the container writes stays there.
void check_upper(const MountRequest& request, std::string_view text) {
  int given = 0;
  for (const std::string& option : request.options) {
    const std::string directory = upper_option(option);
    if (directory.empty()) continue;
    ++given;
    if (directory.front() != '/') throw_usage("mount {}: {} is not an absolute path", quoted(text), quoted(option));
  }
  if (given != 0 && given != 2) throw_usage("mount {}: upperdir= and workdir= go together", quoted(text));
}

void check_options(const MountRequest& request, std::string_view text) {
  check_upper(request, text);
  int propagations = 0;
  for (const std::string& option : request.options) {
    const bool bindlike = request.type == "bind" || request.type == "volume" || request.type == "glob";
    if (is_in(kPropagations, option)) {
      if (++propagations > 1) throw_usage("mount {}: more than one propagation option", quoted(text));
      continue;
    }
    if (is_in(kMountFlags, option)) continue;
    if (bindlike && (is_in(kEngineOptions, option) || option == "bind" || option == "rbind")) continue;
    if (request.type == "bind" && starts_with(option, "create_host_path=")) continue;
    if (has_option(request, "O") && !upper_option(option).empty()) continue;
    if ((bindlike || request.type == "image") && starts_with(option, "subpath=")) continue;
    if (request.type == "tmpfs") {
      if (is_in(std::array{"tmpcopyup", "notmpcopyup", "U", "noswap", "sync", "async"}, option)) continue;
      bool known = false;
      for (const char* prefix : {"size=", "mode=", "uid=", "gid=", "nr_inodes=", "nr_blocks=", "mpol="})
        known = known || starts_with(option, prefix);
      if (known) continue;
    }
    if (request.type == "devpts") {
      bool known = false;
      for (const char* prefix : {"uid=", "gid=", "mode=", "max="}) known = known || starts_with(option, prefix);
      if (known) continue;
    }
    throw_usage("mount {}: unknown option {}", quoted(text), quoted(option));
  }
  if (is_in(request.options, "ro") && is_in(request.options, "rw"))
    throw_usage("mount {}: ro and rw exclude each other", quoted(text));
  if (is_in(request.options, "z") && is_in(request.options, "Z"))
    throw_usage("mount {}: z and Z exclude each other", quoted(text));
}

/// The value of a key of --mount; booleans may stand alone ("readonly") or be given ("ro=true").
bool flag_value(const std::string& key, const std::string& value, bool has_value, std::string_view text) {
  if (!has_value) return true;
  const auto parsed = to_bool(value);
  if (!parsed) throw_usage("mount {}: {}={} is not true or false", quoted(text), key, quoted(value));
  return *parsed;
}

void mount_member(MountRequest& request, const std::string& member, std::string_view text) {
  const size_t equal = member.find('=');
  const bool has_value = equal != std::string::npos;
  const std::string key = to_lower(member.substr(0, equal));
  const std::string value = has_value ? member.substr(equal + 1) : "";
  if (key == "type") {
    request.type = value;
  } else if (key == "source" || key == "src") {
    request.source = value;
  } else if (key == "target" || key == "destination" || key == "dst" || key == "dest") {
    request.target = value;
  } else if (key == "readonly" || key == "ro" || key == "rw" || key == "readwrite") {
    const bool read_only = (key == "ro" || key == "readonly") == flag_value(key, value, has_value, text);
    request.options.emplace_back(read_only ? "ro" : "rw");
  } else if (key == "bind-propagation") {
    if (!is_in(kPropagations, value)) throw_usage("mount {}: unknown propagation {}", quoted(text), quoted(value));
    request.options.push_back(value);
  } else if (key == "bind-nonrecursive") {
    if (flag_value(key, value, has_value, text)) request.options.emplace_back("bind");
  } else if (key == "tmpfs-size" || key == "size") {
    request.options.push_back("size=" + value);
  } else if (key == "tmpfs-mode" || key == "mode") {
    if (!to_octal(value)) throw_usage("mount {}: mode {} is not octal", quoted(text), quoted(value));
    request.options.push_back("mode=" + value);
  } else if (key == "u" || key == "chown") {
    if (flag_value(key, value, has_value, text)) request.options.emplace_back("U");
  } else if (key == "relabel") {
    if (value != "shared" && value != "private") throw_usage("mount {}: relabel={}", quoted(text), quoted(value));
    request.options.emplace_back(value == "shared" ? "z" : "Z");
  } else if (key == "volume-nocopy") {
    if (flag_value(key, value, has_value, text)) request.options.emplace_back("nocopy");
  } else if (key == "volume-subpath" || key == "subpath") {
    request.options.push_back("subpath=" + value);
  } else if (key == "volume-label" || key == "consistency") {
    // Docker's: labels of a volume made in passing are set with `volume create`; consistency is for other systems.
    if (key == "volume-label") throw_usage("mount {}: volume-label: use kelp volume create --label", quoted(text));
  } else if (key == "notmpcopyup" || key == "tmpcopyup") {
    request.options.push_back(key);
  } else if (key == "bind-create-src") {
    request.options.emplace_back(flag_value(key, value, has_value, text) ? "create_host_path=1" : "create_host_path=0");
  } else {
    request.options.push_back(member);  // mount flags stand as they are: noexec, uid=…; checked below
  }
}

void add_default(Strings& options, const char* wanted, std::initializer_list<const char*> unless) {
  if (is_in(options, wanted)) return;
  for (const char* other : unless)
    if (is_in(options, other)) return;
  options.emplace_back(wanted);
}

}  // namespace

MountRequest parse_volume_option(std::string_view text) {
  const auto parts = split(text, ':');
  if (parts.empty() || parts.size() > 3) throw_usage("--volume {}: not [SOURCE:]TARGET[:OPTIONS]", quoted(text));
  MountRequest request;
  request.type = "volume";
  if (parts.size() == 1) {
    request.target = parts[0];
  } else {
    request.source = parts[0];
    request.target = parts[1];
    if (request.source.empty()) throw_usage("--volume {}: the source is empty", quoted(text));
    if (request.source.front() == '/' || request.source.front() == '.') request.type = "bind";
  }
  if (parts.size() == 3)
    for (std::string& option : split(parts[2], ','))
      if (!option.empty() && !is_in(kConsistencies, option)) request.options.push_back(std::move(option));
  check_target(request.target, text);
  check_options(request, text);
  if (is_in(request.options, "O") && is_in(request.options, "U"))
    throw_usage("--volume {}: O and U exclude each other: nothing of the source may change", quoted(text));
  return request;
}

MountRequest parse_mount_option(std::string_view text) {
  MountRequest request;
  for (const std::string& member : split_csv(text, "--mount"))
    if (!member.empty()) mount_member(request, member, text);
  if (request.type.empty()) request.type = "volume";
  if (!is_in(std::array{"bind", "volume", "tmpfs", "ramfs", "devpts", "image", "glob"}, request.type))
    throw_usage("--mount {}: unknown type {}: bind, volume, tmpfs, ramfs, devpts, image and glob are possible",
                quoted(text), quoted(request.type));
  if ((request.type == "image" || request.type == "glob") && request.source.empty())
    throw_usage("--mount {}: source missing", quoted(text));
  if (request.type == "glob" && request.target.empty() && request.source.front() == '/') {
    check_options(request, text);
    return request;  // each match where it is on the host
  }
  if (request.type == "ramfs") request.type = "tmpfs";  // swap-free memory file systems are not for users
  if (request.type == "bind" && request.source.empty()) throw_usage("--mount {}: source missing", quoted(text));
  if ((request.type == "tmpfs" || request.type == "devpts") && !request.source.empty())
    throw_usage("--mount {}: a {} has no source", quoted(text), request.type);
  check_target(request.target, text);
  check_options(request, text);
  return request;
}

MountRequest parse_tmpfs_option(std::string_view text) {
  const size_t colon = text.find(':');
  MountRequest request;
  request.type = "tmpfs";
  request.target = std::string(text.substr(0, colon));
  if (colon != std::string_view::npos) request.options = split(text.substr(colon + 1), ',');
  check_target(request.target, text);
  check_options(request, text);
  return request;
}

std::string subpath_of(const MountRequest& request) {
  for (const std::string& option : request.options) {
    if (!starts_with(option, "subpath=")) continue;
    const std::string path = sys::clean_path("/" + option.substr(8));
    return path == "/" ? "" : path;
  }
  return "";
}

spec::Mount to_spec_mount(const MountRequest& request, const std::string& volume_data) {
  spec::Mount mount;
  mount.destination = sys::clean_path(request.target);
  for (const std::string& option : request.options) {
    if (is_in(kEngineOptions, option) || starts_with(option, "create_host_path=") || starts_with(option, "subpath=") ||
        option == "notmpcopyup" || !upper_option(option).empty())
      continue;
    mount.options.push_back(option);
  }
  if (request.type == "bind" || request.type == "volume") {
    mount.type = "bind";
    mount.source = request.type == "bind" ? request.source : volume_data;
    add_default(mount.options, "rbind", {"bind"});
    add_default(mount.options, "rprivate",
                {"shared", "slave", "private", "unbindable", "rshared", "rslave", "runbindable"});
    if (request.type == "volume") {
      add_default(mount.options, "nosuid", {"suid"});
      add_default(mount.options, "nodev", {"dev"});
    }
  } else if (request.type == "tmpfs") {
    mount.type = "tmpfs";
    mount.source = "tmpfs";
    add_default(mount.options, "nosuid", {"suid"});
    add_default(mount.options, "nodev", {"dev"});
    add_default(mount.options, "rprivate", {"private", "shared", "rshared", "slave", "rslave"});
    if (!is_in(request.options, "notmpcopyup")) add_default(mount.options, "tmpcopyup", {});
    std::erase(mount.options, "rw");
    if (!is_in(mount.options, "ro")) mount.options.insert(mount.options.begin(), "rw");
  } else {
    mount.type = request.type;
    mount.source = request.type;
    add_default(mount.options, "nosuid", {"suid"});
    add_default(mount.options, "noexec", {"exec"});
    mount.options.insert(mount.options.begin(), "newinstance");
  }
  // nosuid and friends given as their opposite are the default of a bind: nothing to say to the kernel.
  std::erase_if(mount.options,
                [](const std::string& option) { return option == "suid" || option == "dev" || option == "exec"; });
  return mount;
}

}  // namespace kelp::engine
