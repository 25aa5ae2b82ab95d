#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kelp::sys {

/// A transient scope unit to ask systemd for.
struct ScopeRequest {
  std::string name;         ///< "kelp-<id>.scope"
  std::string slice;        ///< "user.slice"; "" = the manager's default
  std::string description;  ///< for systemctl status
  std::vector<pid_t> pids;  ///< processes it starts with; at least one
};

/// A connection to systemd: the user's for ordinary callers, the system's for root; its private socket, else the
/// message bus. Spoken here directly, because a static program cannot load libsystemd. Refused quickly when there is no
/// socket. source: org.freedesktop.systemd1(5), D-Bus specification
class Systemd {
 public:
  /// throws Error with the reason: no bus socket, not permitted.
  static Systemd connect();
  ~Systemd();
  Systemd(Systemd&&) noexcept;
  Systemd& operator=(Systemd&&) noexcept;

  /// Sends StartTransientUnit (Delegate=yes) and returns without waiting for the answer.
  void request_scope(const ScopeRequest& request);
  /// Waits for the job of request_scope. false: the manager still knows a unit of that name. throws Error with
  /// systemd's message, or on time-out.
  [[nodiscard]] bool wait_scope(int timeout_ms = 30000);
  /// Moves processes of ours into `group` ("/container") below the control group of a delegated unit, from wherever
  /// they are: what we may not write to, the manager asks the system's manager for. throws Error with systemd's message
  void attach_processes(const std::string& unit, const std::string& group, const std::vector<pid_t>& pids);
  /// StopUnit; a unit that is not there is success.
  void stop_scope(const std::string& name);
  /// The manager's own control group, "/user.slice/user-1000.slice/user@1000.service"; "" = root of the hierarchy.
  std::string control_group();
  /// Control group of a unit, "" if unknown.
  std::string unit_control_group(const std::string& name);
  /// SetUnitProperties with uint64 values ("MemoryMax", n), runtime only.
  void set_properties(const std::string& name, const std::vector<std::pair<std::string, std::uint64_t>>& values);

 private:
  Systemd();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Quick check without a connection: the socket that connect() would use exists.
bool systemd_bus_present();

}  // namespace kelp::sys
