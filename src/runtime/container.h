#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/owned.h"
#include "spec/runtime_config.h"
#include "spec/runtime_state.h"

/// What the runtime remembers of a container: a directory below --root.
///
///     <root>/<id>/           the creator holds a flock on it until the container is created (held: until it runs)
///                config.json as it was when the container was created
///                state.json  written when the first process waits to be started
///                gate        socket of the first process; there from `create` to `start`
///
/// A directory without state.json and without a holder of the lock is what a killed creator left; the next command that
/// touches the id removes it. Status comes from the kernel: pidfd, start time, lock, cgroup.
namespace kelp::runtime {

enum class Status { creating, created, running, paused, stopped };
const char* status_name(Status status) noexcept;

/// state.json
struct Record {
  std::string id;
  pid_t pid = 0;
  std::uint64_t start_time = 0;  ///< of pid, clock ticks since boot
  std::string boot_id;
  std::string bundle, rootfs, created;
  std::string cgroup;  ///< file-system path, "" = none
  bool cgroup_made = false;
  std::string cgroup_scope;     ///< systemd unit, "" = none
  bool mounted_rootfs = false;  ///< in the caller's mount namespace: unmounted on delete
  bool poststop = false;        ///< config.json has poststop hooks
  spec::StringMap annotations;
};

/// --root, or its default: $XDG_RUNTIME_DIR/kelp-oci for whoever owns that directory, else /run/kelp-oci.
std::string default_root();
/// Letters, digits, "_+-.", 1..1024 of them, not "." or "..". throws UsageError.
void check_id(std::string_view id);

/// An open state directory.
class Container {
 public:
  /// Reserves the id: makes the directory and locks it. The lock is held until unlock() or the end. throws UsageError
  /// when the id is in use.
  static Container reserve(const std::string& root, const std::string& id, const std::string& config_text);
  /// An existing container; cleans up first what a dead creator left. throws Error "container "x" does not exist".
  static Container open(const std::string& root, const std::string& id);
  static std::optional<Container> find(const std::string& root, const std::string& id);
  /// Ids below root, sorted.
  static std::vector<std::string> list(const std::string& root);

  [[nodiscard]] const std::string& id() const noexcept { return id_; }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] int dir() const noexcept { return dir_.get(); }

  void write(const Record& record);
  /// write() in two: the file is made while the first process is still at work, and gets its name by publish().
  void stage(const Record& record);
  void publish();
  /// nullopt: not created yet.
  [[nodiscard]] std::optional<Record> read() const;
  /// As read(); throws Error when the container is still being created.
  [[nodiscard]] Record require() const;
  /// The configuration it was created with.
  [[nodiscard]] spec::RuntimeConfig config() const;

  /// pidfd of the first process: empty when it has ended (or another process has its pid now).
  [[nodiscard]] Fd pidfd(const Record& record) const;
  [[nodiscard]] Status status(const std::optional<Record>& record) const;
  [[nodiscard]] spec::RuntimeState state(const std::optional<Record>& record) const;

  /// Takes the lock for a change of state. false: held by another after `timeout_ms`.
  [[nodiscard]] bool lock(int timeout_ms);
  [[nodiscard]] bool held_by_another() const;
  /// Closes the lock: in a cloned child (which shares it), or when the creation is complete.
  void unlock() noexcept { lock_.reset(); }
  /// Removes the directory; state.json goes first, so that a half-removed one counts as left by a dead creator.
  void remove() noexcept;

 private:
  Container(std::string root, std::string id, Fd dir);
  std::string root_, id_, path_;
  Fd dir_, lock_;
};

}  // namespace kelp::runtime
