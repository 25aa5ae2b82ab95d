#include "engine/remove.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/digest_name.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "engine/dependencies.h"
#include "engine/events.h"
#include "engine/network.h"
#include "engine/recover.h"
#include "engine/runtime_client.h"
#include "engine/session.h"
#include "engine/stop.h"
#include "store/containers.h"
#include "store/prune.h"
#include "sys/lock.h"
#include "sys/xattr_tree.h"

namespace kelp::engine {

namespace {

using store::ContainerRecord;

/// Containers that live in this one's namespaces, or were told to start after it.
std::vector<ContainerRecord> dependents(Context& context, const ContainerRecord& record) {
  std::vector<ContainerRecord> found;
  const auto names_it = [&](std::string_view reference) {
    return !reference.empty() && (reference == record.name || reference == record.id ||
                                  (reference.size() >= 12 && starts_with(record.id, reference)));
  };
  for (const ContainerRecord& other : store::list(context.layout)) {
    if (other.id == record.id) continue;
    const store::Strings needed = dependencies(other.config);
    const bool depends = std::any_of(needed.begin(), needed.end(), names_it);
    if (depends) found.push_back(other);
  }
  return found;
}

bool runs(Context& context, const ContainerRecord& record) {
  return store::status(context.layout, record).run.has_value();
}

void stop_first(Context& context, const ContainerRecord& record, const RemoveOptions& options) {
  const store::ContainerStatus status = store::status(context.layout, record);
  if (!status.run) return;
  // A monitor that is just cleaning up needs no --force: its container has ended. Nor does one that waits at the gate.
  if (!options.force && status.status != store::Status::exited && status.status != store::Status::stopping &&
      status.status != store::Status::initialized) {
    const char* state = store::status_name(status.status);
    UsageError error(
        fmt::format("cannot remove container {} as it is {} - running or paused containers cannot be "
                    "removed without force: container state improper",
                    record.id, state));
    error.with_hint("kelp stop " + record.name + ", or kelp rm --force " + record.name);
    throw error;
  }
  stop_container(context, record, options.time_given ? std::optional(options.timeout) : std::nullopt);
}

/// Not even prune's first look at a container is the last word on it: somebody may be starting it.
bool is_busy(Context& context, const ContainerRecord& record) {
  return !store::is_at_rest(store::status(context.layout, record).status);
}

/// The monitor lets go of the lock with its end; whoever else has it (cp, a start) is done soon.
std::optional<sys::FileLock> lock_container(Context& context, const ContainerRecord& record,
                                            const RemoveOptions& options) {
  constexpr int kLostAfter = 300;  // ms: then it may be a container whose run directory was taken away
  const std::string path = store::container_lock(context.layout, record.id);
  for (int waited = 0; waited < 10'000; waited += 5) {
    if (auto lock = sys::FileLock::try_exclusive(path)) return lock;
    if (options.at_rest_only && is_busy(context, record)) return std::nullopt;
    if (!store::find(context.layout, record.id)) return std::nullopt;  // removed meanwhile
    if (waited == kLostAfter) {
      recover_run_directory(context.layout);
      stop_first(context, record, options);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  if (options.at_rest_only) return std::nullopt;
  throw_error("container {} is in use by another command", record.name);
}

void remove_anonymous(Context& context, const ContainerRecord& record) {
  for (const std::string& name : record.anonymous_volumes) {
    const auto volume = store::find_volume(context.layout, name);
    // --volumes-from may have handed it on.
    if (volume && store::volume_users(context.layout, name).empty())
      store::remove_volume(context.layout, *volume, true);
  }
}

/// Entries whose monitor was killed between the rename and the end of its clean-up.
void finish_removals(Context& context, const std::vector<std::string>& trash) {
  for (const std::string& id : trash) {
    if (!is_full_id(id)) continue;
    const std::string path = store::container_lock(context.layout, id);
    const auto lock = sys::FileLock::try_exclusive(path);
    if (!lock) continue;
    clear_remains(context, id);
    store::release_name_of_trashed(context.layout, id);
    ::unlink(path.c_str());
  }
}

/// Run directories of containers that are gone in every other way: their monitor was killed at the last moment.
void sweep_run_directories(Context& context) {
  for (const std::string& id : store::run_directories(context.layout)) {
    if (::access(context.layout.container(id).c_str(), F_OK) == 0) continue;
    const std::string path = store::container_lock(context.layout, id);
    const auto lock = sys::FileLock::try_exclusive(path);
    if (!lock) continue;
    clear_remains(context, id);
    ::unlink(path.c_str());
  }
}

}  // namespace

bool remove_container(Context& context, const ContainerRecord& record, const RemoveOptions& options) {
  for (const ContainerRecord& other : dependents(context, record)) {
    if (!options.depend)
      throw_usage(
          "container {} has dependent containers which must be removed before it: {}: container already "
          "exists",
          record.id, other.id);
    RemoveOptions deeper = options;
    deeper.force = true;
    remove_container(context, other, deeper);
  }
  if (options.at_rest_only && is_busy(context, record)) return false;
  stop_first(context, record, options);
  auto lock = lock_container(context, record, options);
  bool removed = false;
  if (lock) {
    if (runs(context, record)) throw_error("container {} was started again meanwhile", record.name);
    clear_remains(context, record.id);
    removed = store::move_to_trash(context.layout, record);
    if (removed) {
      emit_event(context, record, "remove");
      if (options.volumes || record.config.remove) remove_anonymous(context, record);
    }
    ::unlink(store::container_lock(context.layout, record.id).c_str());
    lock.reset();
  }
  sweep_trash(context);
  sweep_run_directories(context);
  return removed;
}

void remove_volume(Context& context, const store::VolumeRecord& volume, bool force, unsigned timeout) {
  if (force)
    for (const std::string& id : store::volume_users(context.layout, volume.name))
      if (const auto record = store::find(context.layout, id)) {
        RemoveOptions options;
        options.force = true;
        options.timeout = timeout;
        options.time_given = true;
        remove_container(context, *record, options);
      }
  store::remove_volume(context.layout, volume);
  emit_event(context, "volume", "remove", volume.name, volume.name);
  sweep_trash(context);
}

void sweep_trash(Context& context) {
  const std::vector<std::string> trash = store::sweep(context.layout);
  if (trash.empty()) return;
  finish_removals(context, trash);
  // Most of it belongs to the caller and goes without a namespace; what other ids own needs to be seen from S.
  store::empty_trash(context.layout);
  if (store::sweep(context.layout).empty()) return;
  try {
    in_userns(context, [&] {
      store::empty_trash(context.layout);
      // A monitor that has just ended may be at it, too.
      for (int tries = 0; tries < 10 && !store::sweep(context.layout).empty(); ++tries) {
        ::usleep(10000);
        store::empty_trash(context.layout);
      }
    });
  } catch (const Error& error) {
    log::debug("the trash could not be emptied: {}", error.what());  // the next command tries again
  }
}

}  // namespace kelp::engine
