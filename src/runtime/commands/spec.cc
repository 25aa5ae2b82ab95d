#include <fcntl.h>
#include <unistd.h>

#include <array>

#include "base/error.h"
#include "base/owned.h"
#include "runtime/bundle.h"
#include "runtime/commands/commands.h"
#include "sys/lock.h"

namespace kelp::runtime {
namespace {

constexpr std::array kOptions = {
    OptionSpec{"bundle", 'b', "DIR", "where to write config.json (default: the current directory)"},
    OptionSpec{"rootless", 0, nullptr, "a configuration for the calling user, with a user namespace"},
};

spec::Process example_process() {
  spec::Process process;
  process.terminal = true;
  process.args = {"sh"};
  process.env = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"};
  process.no_new_privileges = true;
  const spec::Strings caps = {"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"};
  process.capabilities = spec::Capabilities{caps, caps, {}, caps, caps};
  process.rlimits = {{"RLIMIT_NOFILE", 1024, 1024}};
  return process;
}

spec::RuntimeConfig example_config() {
  spec::RuntimeConfig config;
  config.process = example_process();
  config.root = spec::Root{"rootfs", true};
  config.hostname = "kelp";
  const spec::Strings safe = {"nosuid", "noexec", "nodev"};
  const auto with = [&](spec::Strings more) {
    spec::Strings all = safe;
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  config.mounts = {
      {"/proc", "proc", "proc", {}},
      {"/dev", "tmpfs", "tmpfs", {"nosuid", "strictatime", "mode=755", "size=65536k"}},
      {"/dev/pts", "devpts", "devpts", {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
      {"/dev/shm", "tmpfs", "shm", with({"mode=1777", "size=65536k"})},
      {"/dev/mqueue", "mqueue", "mqueue", safe},
      {"/sys", "sysfs", "sysfs", with({"ro"})},
      {"/sys/fs/cgroup", "cgroup", "cgroup", with({"relatime", "ro"})},
  };
  config.linux_.resources.devices = {{.allow = false, .access = "rwm"}};
  for (const char* type : {"pid", "network", "ipc", "uts", "mount", "cgroup"})
    config.linux_.namespaces.push_back({type, ""});
  config.linux_.masked_paths = {"/proc/acpi",          "/proc/asound",     "/proc/kcore",       "/proc/keys",
                                "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
                                "/sys/firmware",       "/proc/scsi"};
  config.linux_.readonly_paths = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
  return config;
}

int write_spec(const Call& call) {
  spec::RuntimeConfig config = example_config();
  if (call.options.flag("rootless")) {
    config.linux_.resources = {};
    add_user_namespace(config);
  }
  const std::string dir = call.options.has("bundle") ? call.options.value("bundle") : ".";
  const std::string path = dir + "/config.json";
  const Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!file) {
    if (errno == EEXIST) throw_usage("file {} exists: remove it first", path);
    throw_errno("create {}", path);
  }
  sys::write_all(file.get(), spec::print_runtime_config_pretty(config) + "\n", path);
  return 0;
}

}  // namespace

const Command kSpec = {"spec", "", "write an example config.json", kOptions, write_spec, 0, 0};

}  // namespace kelp::runtime
