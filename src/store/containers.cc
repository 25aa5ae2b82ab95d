#include "store/containers.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <tuple>
#include <utility>

#include "base/digest_name.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "store/record_json.h"
#include "sys/directory.h"
#include "sys/safe_path.h"
#include "sys/xattr_tree.h"

namespace kelp::store {

std::string generated_name();  // names.cc

namespace {

std::string drafts(const Layout& layout) { return layout.containers() + "/.new"; }
std::string name_link(const Layout& layout, std::string_view name) { return layout.names() + "/" + std::string(name); }

bool is_directory(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

/// The draft's maker holds a lock on its directory as long as it lives.
bool draft_alive(const Layout& layout, const std::string& id) {
  const Fd dir(::open((drafts(layout) + "/" + id).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return dir && !sys::FileLock::try_exclusive_at(dir.get());
}

/// The name's link leads to nothing that lives: its maker or remover was killed.
bool is_stale(const Layout& layout, const std::string& id) {
  return !is_directory(layout.container(id)) && !draft_alive(layout, id) &&
         !is_directory(layout.container(id));  // it may have been published between the two looks
}

bool try_reserve(const Layout& layout, const std::string& name, const std::string& id) {
  const std::string link = name_link(layout, name);
  if (::symlink(id.c_str(), link.c_str()) == 0) return true;
  if (errno != EEXIST) throw_errno("reserve the name {}", name);
  const auto holder = id_of_name(layout, name);
  if (holder && !is_stale(layout, *holder)) return false;
  // Take-over of a dead name: under a lock, so that two takers cannot unlink each other's fresh link.
  const auto lock = sys::FileLock::exclusive(layout.locks() + "/names");
  const auto again = id_of_name(layout, name);
  if (again && !is_stale(layout, *again)) return false;
  ::unlink(link.c_str());
  return ::symlink(id.c_str(), link.c_str()) == 0;
}

void release_name(const Layout& layout, const std::string& name, const std::string& id) {
  if (id_of_name(layout, name) == id) ::unlink(name_link(layout, name).c_str());
}

[[noreturn]] void throw_name_in_use(const Layout& layout, const std::string& name) {
  UsageError error(
      fmt::format("the container name {} is already in use by {}: you have to remove (or rename) that "
                  "container to be able to reuse that name: that name is already in use",
                  quoted(name), id_of_name(layout, name).value_or("another container")));
  error.with_hint("kelp rm " + name + ", or choose another --name");
  throw error;
}

/// A new directory of drafts under its own lock: its id, and the lock. A sweeper may take it for a dead maker's between
/// mkdir and flock, so what counts is to hold the lock of a directory that is still there.
std::pair<std::string, Fd> new_draft_directory(const Layout& layout) {
  for (int attempt = 0; attempt < 100; ++attempt) {
    std::string id = new_container_id();
    const std::string path = drafts(layout) + "/" + id;
    if (::mkdir(path.c_str(), 0700) < 0) throw_errno("make directory {}", path);
    Fd dir(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    struct stat info {};
    if (dir && ::flock(dir.get(), LOCK_EX | LOCK_NB) == 0 && ::fstat(dir.get(), &info) == 0 && info.st_nlink > 0)
      return {std::move(id), std::move(dir)};
  }
  throw_error("{}: every new directory was removed at once", drafts(layout));
}

ContainerRecord read_record(const Layout& layout, const std::string& id) {
  const std::string path = layout.container(id) + "/record.json";
  const auto text = sys::read_small_file(path, 16U << 20U);
  if (!text) throw SysError("open " + path, ENOENT);
  ContainerRecord record = record_from_json(*text, path);
  if (record.id != id) throw_error("{}: holds the record of {} (damaged)", path, quoted(record.id));
  return record;
}

bool foreign(const ContainerRecord& record) {
  return !record.machine.empty() && !machine_id().empty() && record.machine != machine_id();
}

}  // namespace

ContainerDraft ContainerDraft::begin(const Layout& layout, ContainerRecord record) {
  if (!record.name.empty()) check_name(record.name, "container");
  ContainerDraft draft;
  draft.layout_ = layout;
  draft.record_ = std::move(record);
  ContainerRecord& made = draft.record_;
  made.machine = machine_id();
  std::tie(made.id, draft.lock_) = new_draft_directory(layout);
  draft.directory_ = drafts(layout) + "/" + made.id;
  draft.live_ = true;
  const bool generated = made.name.empty();
  for (int attempt = 0;; ++attempt) {
    if (generated) made.name = generated_name() + (attempt < 10 ? "" : std::to_string(attempt));
    // Before the link is made: from here on a sweeper finds the name of a draft that died.
    sys::replace_file(draft.directory_ + "/record.json", to_json(made));
    if (try_reserve(layout, made.name, made.id)) break;
    if (!generated || attempt > 200) {
      const std::string name = made.name;
      made.name.clear();  // not ours: the destructor must not release it
      throw_name_in_use(layout, name);
    }
  }
  return draft;
}

ContainerDraft::ContainerDraft(ContainerDraft&& other) noexcept
    : layout_(std::move(other.layout_)),
      record_(std::move(other.record_)),
      directory_(std::move(other.directory_)),
      lock_(std::move(other.lock_)),
      live_(std::exchange(other.live_, false)) {}

ContainerDraft::~ContainerDraft() {
  if (!live_) return;
  try {
    if (!record_.name.empty()) release_name(layout_, record_.name, record_.id);
    ::unlink(container_lock(layout_, record_.id).c_str());
    sys::remove_tree(directory_);
  } catch (const Error& error) {
    log::debug("clean up {}: {}", directory_, error.what());
  }
}

sys::FileLock ContainerDraft::lock() { return sys::FileLock::exclusive(container_lock(layout_, record_.id)); }

ContainerRecord ContainerDraft::publish() {
  if (!record_.config.remove) {  // a container that is removed at its end needs not outlive a power cut
    const std::string path = directory_ + "/record.json";
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file || ::fsync(file.get()) < 0) throw_errno("sync {}", path);
  }
  if (::rename(directory_.c_str(), layout_.container(record_.id).c_str()) < 0)
    throw_errno("publish container {}", record_.id);
  directory_ = layout_.container(record_.id);
  live_ = false;
  return record_;
}

std::optional<ContainerRecord> find(const Layout& layout, std::string_view name_or_id) {
  std::string id;
  if (const auto named = id_of_name(layout, name_or_id); named && is_directory(layout.container(*named))) {
    id = *named;
  } else if (is_full_id(name_or_id)) {
    id = std::string(name_or_id);
    if (!is_directory(layout.container(id))) return std::nullopt;
  } else if (is_id_prefix(name_or_id)) {
    for (const std::string& entry : sys::names_in(layout.containers())) {
      if (!is_full_id(entry) || !starts_with(entry, name_or_id)) continue;
      if (!id.empty())
        throw_usage("more than one result for container name or ID {}: {} and {}", quoted(name_or_id), id.substr(0, 12),
                    entry.substr(0, 12));
      id = entry;
    }
    if (id.empty()) return std::nullopt;
  } else {
    return std::nullopt;
  }
  try {
    ContainerRecord record = read_record(layout, id);
    if (foreign(record)) throw_error("container {} belongs to another machine that shares this store", record.name);
    return record;
  } catch (const SysError& error) {
    if (error.code() == ENOENT) return std::nullopt;  // removed between the two looks
    throw;
  }
}

ContainerRecord get(const Layout& layout, std::string_view name_or_id) {
  if (auto record = find(layout, name_or_id)) return std::move(*record);
  UsageError error(fmt::format("no container with name or ID {} found: no such container", quoted(name_or_id)));
  const std::string near = nearest(name_or_id, names(layout));
  if (!near.empty()) error.with_hint("did you mean " + quoted(near) + "?");
  throw error;
}

std::vector<ContainerRecord> list(const Layout& layout) {
  std::vector<ContainerRecord> found;
  int warned = 0;
  for (const std::string& id : sys::names_in(layout.containers())) {
    if (!is_full_id(id)) continue;
    try {
      ContainerRecord record = read_record(layout, id);
      if (!foreign(record)) found.push_back(std::move(record));
    } catch (const Error& error) {
      if (error.code() == ENOENT || ++warned > 2) continue;
      log::warn("container {} is left out: {}", id.substr(0, 12), error.what());
    }
  }
  std::sort(found.begin(), found.end(),
            [](const ContainerRecord& a, const ContainerRecord& b) { return a.created < b.created; });
  return found;
}

std::vector<ContainerRecord> list_external(const Layout& layout) {
  std::vector<ContainerRecord> found;
  for (const std::string& id : sys::names_in(layout.containers())) {
    if (!is_full_id(id)) continue;
    ContainerRecord record;
    try {
      record = read_record(layout, id);
      if (!foreign(record)) continue;
    } catch (const NewerRecord&) {
      record.machine = "newer kelp";
    } catch (const SysError& error) {
      // Whoever removes what is listed here must not do so because we are short of descriptors or memory.
      if (error.code() != ENOENT) throw;
    } catch (const Error& error) {
      log::debug("{}", error.what());
    }
    record.id = id;
    found.push_back(std::move(record));
  }
  return found;
}

std::optional<std::string> id_of_name(const Layout& layout, std::string_view name) {
  if (name.empty() || name.front() == '.' || name.find('/') != std::string_view::npos) return std::nullopt;
  char target[PATH_MAX];
  const ssize_t length = ::readlink(name_link(layout, name).c_str(), target, sizeof target);
  if (length < 0) return std::nullopt;
  const std::string id(target, static_cast<size_t>(length));
  return is_full_id(id) ? std::optional(id) : std::nullopt;
}

Strings names(const Layout& layout) { return sys::names_in(layout.names()); }

ContainerRecord rename_container(const Layout& layout, const ContainerRecord& record, const std::string& new_name) {
  check_name(new_name, "container");
  if (new_name == record.name) throw_name_in_use(layout, new_name);
  if (!try_reserve(layout, new_name, record.id)) throw_name_in_use(layout, new_name);
  ContainerRecord renamed = record;
  renamed.name = new_name;
  try {
    update(layout, renamed);
  } catch (...) {
    release_name(layout, new_name, record.id);
    throw;
  }
  release_name(layout, record.name, record.id);
  return renamed;
}

void update(const Layout& layout, const ContainerRecord& record) {
  sys::replace_file(layout.container(record.id) + "/record.json", to_json(record), 0600, sys::Durability::fsync);
}

bool move_to_trash(const Layout& layout, const ContainerRecord& record) {
  const std::string target = layout.trash() + "/" + record.id;
  if (::rename(layout.container(record.id).c_str(), target.c_str()) < 0) {
    if (errno == ENOENT) return false;
    throw_errno("move container {} to the trash", record.id);
  }
  release_name(layout, record.name, record.id);
  return true;
}

void release_name_of_trashed(const Layout& layout, const std::string& id) {
  const std::string path = layout.trash() + "/" + id + "/record.json";
  try {
    if (const auto text = sys::read_small_file(path, 16U << 20U))
      return release_name(layout, record_from_json(*text, path).name, id);
  } catch (const Error& error) {
    log::debug("{}", error.message());  // half emptied, or damaged
  }
  for (const std::string& name : sys::names_in(layout.names())) release_name(layout, name, id);
}

std::string container_lock(const Layout& layout, std::string_view id) { return layout.locks() + "/" + std::string(id); }

Strings run_directories(const Layout& layout) {
  Strings found = sys::names_in(layout.run);
  std::erase_if(found, [](const std::string& name) {
    return name.size() != 64 || name.find_first_not_of("0123456789abcdef") != std::string::npos;
  });
  return found;
}

bool is_locked(const Layout& layout, std::string_view id) {
  const Fd fd(::open(container_lock(layout, id).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  return fd && ::flock(fd.get(), LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

Strings sweep(const Layout& layout) {
  for (const std::string& id : sys::names_in(drafts(layout))) {
    const std::string path = drafts(layout) + "/" + id;
    const Fd dir(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!dir) continue;
    const auto lock = sys::FileLock::try_exclusive_at(dir.get());
    if (!lock) continue;  // its maker lives
    // The maker keeps the lock until it has published the draft: then what we have open is a container.
    struct stat ours {};
    struct stat named {};
    if (::fstat(dir.get(), &ours) < 0 || ::lstat(path.c_str(), &named) < 0 || ours.st_ino != named.st_ino) continue;
    try {
      const auto text = sys::read_small_file_at(dir.get(), "record.json", 16U << 20U);
      if (text && !text->empty()) {
        const ContainerRecord record = record_from_json(*text, path);
        release_name(layout, record.name, id);
        for (const std::string& volume : record.anonymous_volumes)
          ::rename(layout.volume(volume).c_str(), (layout.trash() + "/volume-" + volume).c_str());
      }
    } catch (const Error& error) {
      log::debug("draft {}: {}", id, error.what());
    }
    try {
      ::unlink(container_lock(layout, id).c_str());
      sys::remove_tree(path);
    } catch (const Error& error) {
      log::debug("draft {}: {}", id, error.what());
    }
  }
  Strings left = sys::names_in(layout.trash());
  // A monitor holds its container's lock until it has emptied the trash of it.
  std::erase_if(left, [&](const std::string& id) { return is_locked(layout, id); });
  return left;
}

}  // namespace kelp::store
