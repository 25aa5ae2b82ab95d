#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/owned.h"
#include "store/container_record.h"
#include "store/layout.h"
#include "sys/lock.h"

/// Containers on disk: a directory each below containers/, published by rename, and a symlink per name below names/.
/// The symlink is the reservation of the name (symlink(2) fails when it exists). Reading takes no lock.
///
/// - containers/.new/<id>/: a draft, locked (flock on the directory) by its maker; one that can be locked is dead
/// - containers/<id>/: published; record.json inside
/// - names/<name> -> <id>: dangling when it is of a draft, or of a maker or remover that died; taken over when so
/// - trash/<id>…: removed; its contents wait for deletion inside S
/// - locks/<id>: who starts the container, runs it (its monitor), removes it or mounts its upper directory
namespace kelp::store {

/// A container in the making. Leaves nothing behind unless publish() was called.
class ContainerDraft {
 public:
  /// Makes the draft directory and reserves the name ("" = generated adjective_noun).
  /// throws UsageError: malformed name, or "the container name … is already in use by <id>"
  static ContainerDraft begin(const Layout& layout, ContainerRecord record);
  ContainerDraft(ContainerDraft&& other) noexcept;
  ContainerDraft(const ContainerDraft&) = delete;
  ~ContainerDraft();

  [[nodiscard]] const ContainerRecord& record() const noexcept { return record_; }
  [[nodiscard]] const std::string& directory() const noexcept { return directory_; }
  /// Takes the container's lock before anybody can see the container: whoever starts it at once keeps it, so that no
  /// prune finds it at rest in between.
  sys::FileLock lock();
  /// Renames the draft to containers/<id>, its record made durable first unless the container goes with its end.
  ContainerRecord publish();

 private:
  ContainerDraft() = default;
  Layout layout_;
  ContainerRecord record_;
  std::string directory_;
  Fd lock_;
  bool live_ = false;
};

/// 64 random hex digits.
std::string new_container_id();
/// A name as podman takes it: [a-zA-Z0-9][a-zA-Z0-9_.-]*. throws UsageError
void check_name(std::string_view name, const char* what);

/// By full name, full id or unique id prefix. throws UsageError when a prefix fits several.
std::optional<ContainerRecord> find(const Layout& layout, std::string_view name_or_id);
/// throws UsageError `no container with name or ID "x" found: no such container`, with the nearest name as hint
ContainerRecord get(const Layout& layout, std::string_view name_or_id);
/// All readable records of this machine, oldest first. Damaged ones, newer ones and those of another machine are
/// skipped (a warning names the first two).
std::vector<ContainerRecord> list(const Layout& layout);
/// Names only, sorted: one directory read, for completion.
Strings names(const Layout& layout);
/// The container of a name, by its link in the index alone; nullopt: of none.
std::optional<std::string> id_of_name(const Layout& layout, std::string_view name);
/// What lies among the containers and is none that list() could give: those of another machine that has the same home,
/// and directories without a readable record, of which nothing but the id is filled in (and `machine`, where a newer
/// kelp wrote it, so that it is no remainder).
std::vector<ContainerRecord> list_external(const Layout& layout);

ContainerStatus status(const Layout& layout, const ContainerRecord& record);
/// throws Error when a newer kelp has written the state of the running container: acting on it is refused, while
/// listings take it as not running.
void refuse_newer_state(const Layout& layout, std::string_view id);
/// The same for the exit of a container that has ended: a start would write another one over it.
void refuse_newer_exit(const Layout& layout, std::string_view id);
std::optional<RunState> read_run_state(const Layout& layout, std::string_view id);
/// Its group is frozen, or its process stopped where it has none.
bool is_paused(const RunState& run);
std::optional<ExitRecord> read_exit_record(const Layout& layout, std::string_view id);
/// For the programs that write it without a JSON library: tests, and starts that fail before a monitor exists.
void write_exit_record(const Layout& layout, std::string_view id, const ExitRecord& exit);

/// Reserves the new name, rewrites the record, releases the old name. throws UsageError when taken.
ContainerRecord rename_container(const Layout& layout, const ContainerRecord& record, const std::string& new_name);
/// Replaces record.json (same id and name). The caller holds the container's lock.
void update(const Layout& layout, const ContainerRecord& record);
/// Out of sight: the directory goes to trash/, then the name is released. The caller holds the container's lock and
/// knows that no monitor lives. false: somebody else was quicker.
bool move_to_trash(const Layout& layout, const ContainerRecord& record);

/// Of a container in trash/ whose remover was killed: the name, if the link is still there.
void release_name_of_trashed(const Layout& layout, const std::string& id);

/// The lock file of one container: whoever mounts its upper directory, starts or removes it holds it exclusively.
std::string container_lock(const Layout& layout, std::string_view id);
/// Somebody holds it: a start, a monitor, or a command that copies files.
bool is_locked(const Layout& layout, std::string_view id);

/// Ids that have a directory of their own below the run directory, in no order.
Strings run_directories(const Layout& layout);

/// Two directory reads, of directories that are normally empty: dead drafts are removed, and entries of trash/ listed
/// for deletion (inside S, see engine/remove.h).
Strings sweep(const Layout& layout);

}  // namespace kelp::store
