#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/users.h"
#include "spec/runtime_config.h"
#include "store/container_record.h"
#include "sys/idmap.h"

namespace kelp::engine {

/// A namespace of the container: new, the host's (of S), or one to join.
struct NamespaceChoice {
  enum class Kind { fresh, host, join };
  Kind kind = Kind::fresh;
  std::string path;  ///< for join
};

/// All that make_spec() looks at. It touches neither disk nor kernel, so a golden test can hold each case.
struct SpecInput {
  const store::ContainerRecord* record = nullptr;
  ResolvedUser user;
  // namespaces
  NamespaceChoice network, pid, ipc, uts, cgroup;
  std::string user_namespace;   ///< another container's child user namespace, "" = by the record's maps
  bool host_network = false;    ///< sysfs cannot be mounted: the host's is bound
  bool host_has_mqueue = true;  ///< for --ipc host: the host has /dev/mqueue
  bool apt_as_root = false;     ///< files/apt.conf is to be seen by apt
  bool single_id = false;       ///< gid 5 is not mapped: devpts without gid=5
  // files
  std::string rootfs;  ///< "merged" relative to the bundle, or the absolute --rootfs
  std::string files;   ///< host directory with hosts, resolv.conf, hostname, containerenv…
  bool has_hosts = false, has_resolv_conf = false, has_hostname = false, has_passwd = false, has_group = false;
  std::string hostname;
  std::vector<spec::Mount> mounts;  ///< the user's, in order
  struct BoundDevice {
    std::string source, target, access;  ///< access: letters of rwm
  };
  std::vector<BoundDevice> devices;  ///< nodes cannot be made without root: the host's are bound
  std::string shared_shm;            ///< host directory that is another container's /dev/shm, "" = its own
  std::string init_program;          ///< host path of the init for --init
  // security
  std::optional<spec::Seccomp> seccomp;
  std::uint64_t known_caps = 0;  ///< of this kernel, for --privileged and ALL
  std::string apparmor_profile, selinux_label;
  std::string mount_label;  ///< of file systems that are made for the container; "" = none
  // limits
  std::string cgroup_path;     ///< linux.cgroupsPath, "" = none
  bool can_limit_pids = true;  ///< the default limit is written only where it can be enforced
  store::StringMap http_proxy_env;
  store::StringMap secret_env;             ///< --secret type=env
  std::string notify_socket;               ///< value of NOTIFY_SOCKET, "" = none
  std::string timezone_file;               ///< host path bound to /etc/localtime
  std::vector<spec::Rlimit> host_rlimits;  ///< the caller's: hard limits are the ceiling of defaults
};

/// The runtime config of one start. throws UsageError: unknown capability, security option, sysctl that needs another
/// namespace, no command.
spec::RuntimeConfig make_runtime_config(const SpecInput& input);
/// The same as config.json text.
std::string make_spec(const SpecInput& input);

/// Bounding set as capability bits of what the options ask for (also used to choose the seccomp rules).
std::uint64_t wanted_capabilities(const store::ContainerConfig& config, std::uint64_t known_caps);

/// command line: entrypoint and command of the user over those of the image. throws UsageError when empty
store::Strings effective_command(const store::ImageDefaults& image, const store::ContainerConfig& config);

/// --systemd, and what it means by "true": the command is systemd or an init.
bool runs_systemd(const store::ContainerConfig& config, const store::Strings& command);
/// Name of the signal that asks the container to end: the user's, the image's, systemd's own, else SIGTERM.
std::string effective_stop_signal(const store::ContainerRecord& record);

/// Answers for calls that need ids which single-ID mode does not have: chown, setuid and friends succeed and do
/// nothing. The filter is `base` with those calls taken over; nullopt = everything else is allowed.
spec::Seccomp with_faked_ids(std::optional<spec::Seccomp> base);

/// Limits in the words of the runtime specification. throws UsageError: a device path or number that is off
spec::Resources make_resources(const store::ContainerConfig& config, bool has_cgroup, bool can_limit_pids);
/// A limit that was asked for and that only a cgroup can enforce: the option, and the controller it needs ("" = none).
struct WantedLimit {
  std::string option, controller;
};
std::vector<WantedLimit> wanted_limits(const store::Resources& resources);

/// --security-opt taken apart. throws UsageError: unknown option
struct SecurityOptions {
  bool no_new_privileges = false;
  std::string seccomp;   ///< "" or "default", "hardened", "unconfined", or a path
  std::string apparmor;  ///< "" = default, "unconfined", or a profile
  store::Strings labels;
  bool label_disable = false;
  store::Strings mask, unmask;  ///< unmask may hold ALL
  store::Strings proc_options;
};
SecurityOptions parse_security_options(const store::Strings& options);

/// Labels for SELinux: of the process and of files that it alone, or every container, may use.
struct SelinuxLabels {
  std::string process, file, shared_file;
};
/// labels: "user:…", "role:…", "type:…", "level:…", "filetype:…" of --security-opt label=; what is not named is that of
/// other containers (container_t), and `level` of this one. throws UsageError for another word
SelinuxLabels selinux_labels(const store::Strings& labels, const std::string& level);

/// The level of a container, "s0:c12,c345": its two categories keep confined processes of other containers from its
/// files. They follow from the id, so they are the same at each start and for a record of any age; two containers have
/// the same ones in one of 523 776 cases.
std::string selinux_level(std::string_view container_id);

}  // namespace kelp::engine
