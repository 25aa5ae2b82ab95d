#include "engine/devices.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "base/error.h"
#include "base/text.h"
#include "engine/cdi.h"
#include "sys/safe_path.h"

namespace kelp::engine {

namespace {

using Devices = std::vector<SpecInput::BoundDevice>;

bool is_device(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode));
}

void add_directory(const std::string& from, const std::string& to, const std::string& access, Devices& devices) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(from.c_str()), ::closedir);
  if (!dir) return;
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(dir.get()))
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    const std::string path = from + "/" + name;
    struct stat info {};
    if (::lstat(path.c_str(), &info) < 0 || S_ISLNK(info.st_mode)) continue;
    if (S_ISDIR(info.st_mode))
      add_directory(path, to + "/" + name, access, devices);
    else if (is_device(path))
      devices.push_back({path, to + "/" + name, access});
  }
}

void add_option(const std::string& text, Devices& devices) {
  const auto parts = split(text, ':');
  if (parts.empty() || parts.size() > 3 || parts[0].empty())
    throw_usage("--device {}: not HOST[:CONTAINER[:rwm]]", quoted(text));
  if (parts[0].front() != '/')
    throw_usage("--device {}: neither an absolute path nor a CDI device (VENDOR/CLASS=NAME)", quoted(text));
  std::string target = parts[0];
  std::string access = "rwm";
  const auto is_access = [](const std::string& word) {
    return !word.empty() && word.find_first_not_of("rwm") == std::string::npos;
  };
  if (parts.size() == 2 && is_access(parts[1])) {
    access = parts[1];
  } else if (parts.size() >= 2) {
    target = parts[1];
  }
  if (parts.size() == 3) access = parts[2];
  if (!is_access(access)) throw_usage("--device {}: invalid permissions {}", quoted(text), quoted(access));
  if (target.empty() || target.front() != '/') throw_usage("--device {}: {} is not absolute", quoted(text), target);
  struct stat info {};
  if (::stat(parts[0].c_str(), &info) < 0) throw_errno("stat {}", parts[0]);
  if (S_ISDIR(info.st_mode)) {
    const size_t before = devices.size();
    add_directory(parts[0], target, access, devices);
    if (devices.size() == before) throw_usage("--device {}: no devices in the directory", quoted(text));
    return;
  }
  if (!is_device(parts[0])) throw_usage("--device {}: not a device node", quoted(text));
  devices.push_back({parts[0], sys::clean_path(target), access});
}

/// What the runtime makes itself, and what belongs to the host's terminals.
bool left_out(const std::string& path) {
  for (const char* made :
       {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/console", "/dev/ptmx"})
    if (path == made) return true;
  for (const char* prefix : {"/dev/pts/", "/dev/shm/", "/dev/mqueue/", "/dev/tty", "/dev/vcs", "/dev/hugepages/"})
    if (starts_with(path, prefix)) return true;
  return ::access(path.c_str(), R_OK) < 0 && ::access(path.c_str(), W_OK) < 0;
}

}  // namespace

Devices find_devices(const store::ContainerConfig& config) {
  Devices devices;
  for (const std::string& text : config.devices)
    if (!is_cdi_name(text)) add_option(text, devices);
  if (config.privileged) {
    Devices all;
    add_directory("/dev", "/dev", "rwm", all);
    for (SpecInput::BoundDevice& device : all) {
      const auto same = [&](const SpecInput::BoundDevice& other) { return other.target == device.target; };
      if (!left_out(device.source) && std::none_of(devices.begin(), devices.end(), same))
        devices.push_back(std::move(device));
    }
  }
  return devices;
}

}  // namespace kelp::engine
