#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "sys/idmap.h"

namespace kelp::store {

using Strings = std::vector<std::string>;
using StringMap = std::map<std::string, std::string>;

/// One published port, ranges already expanded to single ports.
struct PortMapping {
  std::string host_ip;          ///< "" = all addresses
  std::uint16_t host_port = 0;  ///< 0 = choose a free one; resolved before it is recorded as bound
  std::uint16_t container_port = 0;
  std::string protocol = "tcp";  ///< tcp, udp
};

/// -v, --mount, --tmpfs in one shape.
struct MountRequest {
  std::string type;    ///< bind, volume, tmpfs, image, devpts, glob
  std::string source;  ///< host path, volume name ("" = anonymous), image name
  std::string target;  ///< absolute path in the container
  Strings options;     ///< as given: ro, rw, z, U, rslave, size=…, mode=…
};

struct Ulimit {
  std::string name;       ///< without RLIMIT_, lower case: nofile
  std::int64_t soft = 0;  ///< -1 = unlimited
  std::int64_t hard = 0;
};

/// --secret, resolved when the container was made: the value lies in containers/<id>/secrets/<name>.
struct SecretRequest {
  std::string name, id;
  bool env = false;
  std::string target;  ///< path in the container, or name of the variable
  unsigned uid = 0, gid = 0, mode = 0444;
};

/// Limits as asked for; nullopt = not asked for. Bytes, microseconds, counts. source: podman-run(1)
struct Resources {
  std::optional<std::int64_t> memory, memory_swap, memory_reservation, memory_swappiness;
  std::optional<double> cpus;
  std::optional<std::int64_t> cpu_shares, cpu_quota, cpu_period, cpu_rt_period, cpu_rt_runtime;
  std::optional<std::string> cpuset_cpus, cpuset_mems;
  std::optional<std::int64_t> pids_limit;  ///< -1 = unlimited
  std::optional<std::int64_t> blkio_weight;
  Strings blkio_weight_device, device_read_bps, device_write_bps, device_read_iops, device_write_iops;  ///< PATH:N
  std::optional<std::int64_t> shm_size;
  std::optional<int> oom_score_adj;
  bool oom_kill_disable = false;
  StringMap unified;  ///< --cgroup-conf
};

/// What was asked for; engine::effective_health() fills in the image's word and the defaults.
struct HealthCheck {
  Strings test;  ///< {"NONE"}, {"CMD", …}, {"CMD-SHELL", line}; empty = the image's
  std::optional<std::chrono::nanoseconds> interval, timeout, start_period;  ///< interval 0: only on request
  std::optional<int> retries;
  Strings startup_test;  ///< runs instead until it has succeeded; empty = none
  std::optional<std::chrono::nanoseconds> startup_interval, startup_timeout;
  int startup_success = 0, startup_retries = 0;    ///< 0 retries: for ever
  std::string on_failure = "none";                 ///< none, kill, restart, stop
  std::string log_destination = "local";           ///< local, events_logger, or a directory
  unsigned max_log_count = 5, max_log_size = 500;  ///< 0 = no limit
};

/// What `run`, `create` were asked for, after parsing and before any look at the host: everything that a later
/// `start` needs to make the same container again. "Empty" always means "as the image or the default says".
struct ContainerConfig {
  // identity
  std::string name;  ///< "" = generated
  std::optional<std::string> hostname;
  StringMap labels, annotations;
  // process
  Strings command;                    ///< after the image name
  std::optional<Strings> entrypoint;  ///< {} with value = explicitly none
  StringMap env;                      ///< resolved from -e, --env-file, --env-host
  Strings unset_env;
  bool unset_env_all = false;
  std::string workdir, user;  ///< user "uid[:gid]" or names
  Strings group_add;
  std::optional<std::string> umask;
  bool tty = false, interactive = false, init = false;
  std::string init_path;
  std::optional<std::string> stop_signal;
  std::optional<unsigned> stop_timeout;  ///< seconds; default 10
  unsigned timeout = 0;                  ///< seconds until kill, 0 = none
  std::string timezone;
  Strings passwd_entries, group_entries;
  bool passwd = true;  ///< a user that the image does not know gets lines in passwd and group
  Strings env_merge;   ///< "PATH=${PATH}:/more": values that name variables of the image, in order
  // life
  bool remove = false, remove_image = false, detach = false;
  std::string restart_policy = "no";  ///< no, always, on-failure, unless-stopped
  unsigned restart_max = 0;           ///< 0 = no limit
  std::optional<HealthCheck> health;
  std::string detach_keys = "ctrl-p,ctrl-q";
  bool sig_proxy = true;
  Strings attach;  ///< stdin, stdout, stderr; empty = default
  std::string cidfile, pidfile, conmon_pidfile;
  std::string systemd = "true";  ///< true, false, always
  std::string sdnotify = "container";
  std::vector<std::string> depends_on;  ///< --requires, container ids
  unsigned preserve_fds = 0;
  // namespaces
  std::string userns, uts, ipc, pid, cgroupns;  ///< "", host, private, container:ID, ns:PATH, keep-id[:…], nomap, auto
  Strings uidmap, gidmap;
  std::string subuid_name, subgid_name;
  // network
  std::vector<std::string> networks;  ///< --network values; empty = default (slirp4netns)
  std::vector<PortMapping> ports;
  bool publish_all = false;
  Strings expose;  ///< "80/tcp"
  Strings dns, dns_search, dns_option, add_host;
  bool no_hosts = false, no_hostname = false;
  std::string hosts_file;  ///< base of /etc/hosts: a path, "none" or "image"; "" = none
  std::string mac_address, ip, ip6;
  Strings network_aliases;
  bool http_proxy = true;
  // rootfs and mounts
  std::vector<MountRequest> mounts;
  Strings volumes_from;
  bool read_only = false, read_only_tmpfs = true;
  std::string image_volume = "anonymous";  ///< anonymous, tmpfs, ignore
  std::string rootfs;                      ///< --rootfs: a directory instead of an image
  Strings devices;                         ///< host[:container[:rwm]]
  Strings device_cgroup_rules;
  std::vector<SecretRequest> secrets;
  // security
  bool privileged = false;
  Strings cap_add, cap_drop;
  Strings security_opt;  ///< as given: no-new-privileges, seccomp=…, label=…, mask=…, unmask=…
  StringMap sysctl;
  std::vector<Ulimit> ulimits;
  // resources
  Resources resources;
  std::string cgroups = "enabled";  ///< enabled, disabled, no-conmon, split
  std::string cgroup_parent;
  // log
  std::string log_driver = "k8s-file";
  StringMap log_options;  ///< path, max-size, max-file, tag
  // image choice (used by create only, kept for inspect)
  std::string platform, pull_policy = "missing";
  Strings create_command;  ///< the command line, for inspect
};

/// What an image says about the process. Kept in the record, so that a container starts as it was made whatever
/// becomes of its image.
struct ImageDefaults {
  Strings env, entrypoint, cmd, volumes, exposed_ports;  ///< "NAME=value"; "80/tcp"
  std::string workdir, user, stop_signal;
  StringMap labels;
  std::optional<HealthCheck> health;
};

/// containers/<id>/record.json: what is fixed at creation. Written once, replaced by rename on rename/update.
/// The status is never in it; see store::status().
struct ContainerRecord {
  static constexpr int kSchema = 1;
  std::string id;  ///< 64 hex digits
  std::string name;
  std::chrono::system_clock::time_point created;
  std::string image_id;      ///< hex of the image config digest; "" with --rootfs
  std::string image_name;    ///< as resolved: docker.io/library/nginx:latest
  std::string image_digest;  ///< manifest digest
  std::string map_key;       ///< id map of the root filesystem, see layers.h
  /// Child user namespace of S: inside = id in the container, outside = id in S. Empty: the container lives in S.
  sys::IdRanges uid_map, gid_map;
  Strings layer_chain;  ///< chain ids (hex), base first, as store::overlay_lowers() takes them
  ImageDefaults image;
  ContainerConfig config;
  Strings anonymous_volumes;       ///< removed with the container (--rm, rm -v)
  std::vector<PortMapping> ports;  ///< as bound, host ports resolved
  std::string machine;             ///< machine id: another machine's records are left alone
};

/// run/<id>/state.json: written by the monitor through a new name and rename, schema 1; a plain one-line JSON.
struct RunState {
  static constexpr int kSchema = 1;
  int monitor_pid = 0;
  std::uint64_t monitor_start = 0;  ///< field 22 of /proc/PID/stat
  int pid = 0;                      ///< the container's init, 0 before it was created
  std::uint64_t pid_start = 0;
  std::string boot;    ///< boot id
  std::string cgroup;  ///< path below the cgroup2 mount, "" = none
  std::chrono::system_clock::time_point started;
  unsigned restarts = 0;
  bool initialized = false;  ///< its init waits at the gate: `init` has set it up, `start` lets it go
};

/// containers/<id>/exit.json: the last exit, written by the monitor before anybody is told.
struct ExitRecord {
  static constexpr int kSchema = 1;
  int code = 0;  ///< 0–255; 128+n for signals
  std::chrono::system_clock::time_point started, finished;
  bool oom_killed = false;
  std::string error;             ///< why a start failed, "" otherwise
  bool stopped_by_user = false;  ///< `stop`/`kill`: unless-stopped does not restart after boot
  unsigned restarts = 0;         ///< by the policy, in the life that ended
};

enum class Status { created, initialized, running, paused, stopping, exited };
const char* status_name(Status status) noexcept;
/// It has namespaces and a root file system that others can enter.
constexpr bool can_be_entered(Status status) noexcept {
  return status == Status::running || status == Status::paused || status == Status::initialized;
}
/// No program of its image runs, or not yet: it is removed without force.
constexpr bool is_at_rest(Status status) noexcept {
  return status == Status::created || status == Status::initialized || status == Status::exited;
}

/// Derived from the kernel at the moment of the call: pidfd and start time of the monitor, freezer of the cgroup.
struct ContainerStatus {
  Status status = Status::created;
  std::optional<RunState> run;          ///< while a monitor lives
  std::optional<ExitRecord> last_exit;  ///< nullopt: never ended, or the record was lost with its monitor
  bool exit_unknown = false;            ///< it ran, it is gone, and nobody recorded how (never invent 0)
  std::string health;                   ///< "", starting, healthy, unhealthy
};

}  // namespace kelp::store
