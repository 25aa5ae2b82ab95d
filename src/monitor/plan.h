#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kelp::monitor {

/// Records of "key=value", each ended by NUL: what kelp tells its monitor, so that the monitor needs no JSON parser.
/// A key may come more than once (a list).
class Records {
 public:
  void add(std::string_view key, std::string_view value);
  void add_all(std::string_view key, const std::vector<std::string>& values) {
    for (const auto& value : values) add(key, value);
  }
  [[nodiscard]] const std::string& text() const noexcept { return text_; }

 private:
  std::string text_;
};
using RecordList = std::vector<std::pair<std::string, std::string>>;
/// throws Error on a record without '=' or an unfinished last one.
RecordList parse_records(std::string_view text);

/// One kind of probe. interval_ms 0: only when somebody asks for it.
struct ProbePlan {
  std::vector<std::string> exec;  ///< arguments of the runtime's exec, without the global ones; empty = no check
  std::int64_t interval_ms = 30000, timeout_ms = 30000;
};
struct HealthPlan : ProbePlan {
  std::int64_t start_period_ms = 0;
  int retries = 3;
  ProbePlan startup;                             ///< runs instead of the check until it has succeeded often enough
  int startup_success = 0, startup_retries = 0;  ///< 0 retries: it may fail for ever
  std::string on_failure = "none";               ///< none, kill, restart, stop
  std::string file;                              ///< health.json: status and the last probes
  std::string log_copy;                          ///< --health-log-destination DIR: the same text once more
  unsigned log_count = 5, log_size = 500;        ///< probes kept, bytes of output kept of each; 0 = all
};

/// Everything that a monitor knows of its container. Paths are absolute.
struct Plan {
  static constexpr int kVersion = 1;

  std::string id, name;
  std::string bundle;               ///< containers/<id>
  std::string run_dir;              ///< run/<id>, exists
  std::string exit_file;            ///< containers/<id>/exit.json
  std::string merged;               ///< mount point to undo at the end, "" = none
  std::vector<std::string> mounts;  ///< further ones below the bundle
  /// The container's mount namespace is ours too, until its end has been told: the kernel takes a mount namespace apart
  /// before it says that its last process has ended, and waits for a grace period (0.1 to 0.3 ms). Not where something
  /// of the host's is mounted inside: who waits for the end may want to unmount that.
  bool hold_mounts = false;
  std::string boot;         ///< boot id, for state.json
  std::string cgroup;       ///< X as a path of the file system, "" = none; removed at the end
  std::string cgroup_leaf;  ///< X/container below the mount of the hierarchy, as state.json has it
  std::string pid_file;     ///< --pidfile, "" = none
  // the runtime
  std::vector<std::string> runtime;      ///< program and global arguments: "/…/kelp-oci", "--root", …
  std::vector<std::string> create_args;  ///< further arguments of run or create
  bool own_runtime = true;               ///< knows `run --hold-fd`; otherwise create and start are two calls
  std::string state_dir;                 ///< own runtime's record, removed at the end; "" = only its `delete` can do it
  // network
  std::vector<std::string> slirp;  ///< argv of slirp4netns without descriptors, socket and target; empty = none
  std::vector<std::pair<std::string, std::string>> forwards;  ///< port in words, API request
  // streams
  std::string log_driver = "k8s-file", log_path;  ///< journald: the journal's socket
  std::string log_fields;                         ///< journald: "NAME=value\n" lines of each entry
  std::int64_t log_max_size = -1;                 ///< bytes, -1 = no limit
  std::int64_t log_max_files = 2;                 ///< with the one that is written
  bool tty = false, interactive = false;
  unsigned preserve_fds = 0;       ///< descriptors from 3 on that the container gets
  unsigned rows = 0, columns = 0;  ///< of a terminal, 0 = leave
  // what happens is told here
  std::string events;         ///< events.log, "" = nowhere
  std::string event_subject;  ///< see event_log.h
  bool stay_at_gate = false;  ///< `init`: the first start ends before the command is executed, until somebody starts it
  bool event_attach = false;  ///< the starter is attached to its streams
  std::string notify_socket;  ///< NOTIFY_SOCKET of whoever started us, "" = nobody waits
  std::string notify;         ///< who is ready: conmon (the container runs), container (it says so), healthy
  std::string monitor_pid_file;
  // life
  std::string restart = "no";  ///< no, always, on-failure, unless-stopped
  unsigned restart_max = 0;
  int stop_signal = 15;
  unsigned stop_timeout = 10, timeout = 0;  ///< seconds
  HealthPlan health;
  int caller_pid = 0;             ///< --die-with-parent: the container ends with this process, 0 = it does not
  std::int64_t caller_start = 0;  ///< its start time, in clock ticks since boot
  // --rm
  bool remove = false;
  std::string names_dir, trash_dir, containers_dir, volumes_dir, lock_path;
  std::vector<std::string> anonymous_volumes;  ///< names
};

std::string encode(const Plan& plan);
/// What `update` may change of a living monitor's plan: restart policy and health check.
std::string encode_change(const Plan& plan);
/// Takes what encode_change wrote into `plan`; throws Error as decode does, and then has changed nothing.
void apply_change(Plan& plan, std::string_view text);
/// throws Error on a newer version, unknown numbers and missing keys; unknown keys of this version are an error too,
/// since both sides come from one build.
Plan decode(std::string_view text);

}  // namespace kelp::monitor
