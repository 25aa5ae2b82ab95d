#include "runtime/container.h"

#include <dirent.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "cgroup/cgroup.h"
#include "sys/clone.h"
#include "sys/lock.h"
#include "sys/procfs.h"
#include "sys/safe_path.h"
#include "sys/subid.h"

namespace kelp::runtime {
namespace {

constexpr int kSchema = 1;
constexpr int kReserveTries = 1000;
constexpr const char* kFiles[] = {"state.json", "gate", "config.json"};

/// true when we are uid 0 of the initial user namespace: the one whose directory is /run.
bool is_host_root() {
  if (::geteuid() != 0) return false;
  const auto map = sys::try_read_file("/proc/self/uid_map");
  return map && map->find("4294967295") != std::string::npos;
}

Fd open_dir(const std::string& path) {
  return Fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

bool try_flock(int fd) { return ::flock(fd, LOCK_EX | LOCK_NB) == 0; }

void write_new(int dirfd, const char* name, std::string_view text) {
  const Fd file(::openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file) throw_errno("create {}", name);
  sys::write_all(file.get(), text, name);
}

std::string print_record(const Record& record) {
  const nlohmann::json out = {
      {"schema", kSchema},
      {"id", record.id},
      {"pid", record.pid},
      {"start_time", record.start_time},
      {"boot_id", record.boot_id},
      {"bundle", record.bundle},
      {"rootfs", record.rootfs},
      {"created", record.created},
      {"cgroup", record.cgroup},
      {"cgroup_made", record.cgroup_made},
      {"cgroup_scope", record.cgroup_scope},
      {"mounted_rootfs", record.mounted_rootfs},
      {"poststop", record.poststop},
      {"annotations", record.annotations},
  };
  return out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

Record parse_record(const std::string& text) {
  const nlohmann::json in = nlohmann::json::parse(text);
  if (in.at("schema").get<int>() > kSchema) throw_error("it was written by a newer kelp-oci");
  Record record;
  record.id = in.at("id");
  record.pid = in.at("pid");
  record.start_time = in.at("start_time");
  record.boot_id = in.at("boot_id");
  record.bundle = in.at("bundle");
  record.rootfs = in.at("rootfs");
  record.created = in.at("created");
  record.cgroup = in.at("cgroup");
  record.cgroup_made = in.at("cgroup_made");
  record.cgroup_scope = in.at("cgroup_scope");
  record.mounted_rootfs = in.value("mounted_rootfs", false);
  record.poststop = in.at("poststop");
  record.annotations = in.at("annotations").get<spec::StringMap>();
  return record;
}

/// What /proc/PID/stat says of a process' identity and end.
struct ProcessLook {
  std::uint64_t start_time = 0;
  bool exiting = false;
};

/// nullopt: no such process. A pid 1 that has died waits, exiting, until others of its pid namespace are reaped; their
/// parent may be a host's pid 1 that never does. Such a container has ended all the same.
std::optional<ProcessLook> look_at(pid_t pid) {
  constexpr std::int64_t kExiting = 0x4;  // PF_EXITING
  const auto text = sys::try_read_file(fmt::format("/proc/{}/stat", pid));
  if (!text) return std::nullopt;
  const size_t name_end = text->rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  const std::vector<std::string> fields = split(std::string_view(*text).substr(name_end + 2), ' ');
  if (fields.size() < 20) return std::nullopt;
  return ProcessLook{static_cast<std::uint64_t>(to_int(fields[19]).value_or(0)),
                     (to_int(fields[6]).value_or(0) & kExiting) != 0};
}

}  // namespace

const char* status_name(Status status) noexcept {
  switch (status) {
    case Status::creating:
      return "creating";
    case Status::created:
      return "created";
    case Status::running:
      return "running";
    case Status::paused:
      return "paused";
    case Status::stopped:
      return "stopped";
  }
  return "unknown";
}

std::string default_root() {
  const char* dir = ::getenv("XDG_RUNTIME_DIR");
  if (dir != nullptr && dir[0] == '/' && !is_host_root()) return std::string(dir) + "/kelp-oci";
  if (::geteuid() != 0)
    throw UsageError("XDG_RUNTIME_DIR is not set, so there is no place for the state of containers")
        .with_hint("name one with --root DIR");
  return "/run/kelp-oci";
}

void check_id(std::string_view id) {
  bool good = !id.empty() && id.size() <= 1024 && id != "." && id != "..";
  for (const char c : id) {
    const bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    good = good && (alnum || c == '_' || c == '+' || c == '-' || c == '.');
  }
  if (!good) throw_usage("invalid container id {}: letters, digits and _+-. are allowed", kelp::quoted(id));
}

Container::Container(std::string root, std::string id, Fd dir)
    : root_(std::move(root)), id_(std::move(id)), path_(root_ + "/" + id_), dir_(std::move(dir)) {}

/// The directory appears under its own name at once and is ours when we hold its lock: there is no draft that a killed
/// maker could leave behind. What it does leave is a directory without state and without lock, which find() removes.
Container Container::reserve(const std::string& root, const std::string& id, const std::string& config_text) {
  check_id(id);
  const std::string path = root + "/" + id;
  for (int tries = 0; tries < kReserveTries; ++tries) {
    if (::mkdir(path.c_str(), 0700) < 0) {
      if (errno == ENOENT) {
        sys::mkdirs(root, 0700);
      } else if (errno != EEXIST) {
        throw_errno("create {}", path);
      } else if (find(root, id)) {
        throw_usage("container with id {} already exists", kelp::quoted(id));
      }
      continue;
    }
    Rollback unmake;  // still empty, and nobody's but ours
    unmake.add([&] { ::rmdir(path.c_str()); });
    Fd lock = open_dir(path);
    if (!lock && errno != ENOENT) throw_errno("open {}", path);
    // Before it was locked it looked like a dead maker's: whoever looked may hold the lock, or have removed it.
    struct stat info {};
    if (!lock || !try_flock(lock.get()) || ::fstat(lock.get(), &info) < 0 || info.st_nlink == 0) {
      unmake.commit();
      continue;
    }
    // Another open file than the lock's: held_by_another() and the children look through this one.
    Container made(root, id, open_dir(path));
    if (!made.dir_) throw_errno("open {}", path);
    unmake.commit();
    made.lock_ = std::move(lock);
    Rollback undo;
    undo.add([&] { made.remove(); });
    write_new(made.dir_.get(), "config.json", config_text);
    undo.commit();
    return made;
  }
  throw_error("{}: every new directory was removed at once", path);
}

std::optional<Container> Container::find(const std::string& root, const std::string& id) {
  check_id(id);
  Fd dir = open_dir(root + "/" + id);
  if (!dir) {
    if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
    throw_errno("open the state of container {}", kelp::quoted(id));
  }
  Container found(root, id, std::move(dir));
  struct stat info {};
  if (::fstatat(found.dir_.get(), "state.json", &info, AT_SYMLINK_NOFOLLOW) == 0) return found;
  if (!found.lock(0)) return found;  // being created
  // Look again under the lock: its creator may have finished in between.
  if (::fstatat(found.dir_.get(), "state.json", &info, AT_SYMLINK_NOFOLLOW) == 0) {
    found.unlock();
    return found;
  }
  log::debug("removing what a dead create left of {}", id);
  try {
    const spec::RuntimeConfig config = found.config();
    if (starts_with(config.linux_.cgroups_path, "/") && !cgroup::v2_mount().empty()) {
      const std::string group = cgroup::v2_mount() + sys::clean_path(config.linux_.cgroups_path);
      if (!cgroup::populated(group)) (void)cgroup::remove_tree(group, 0);
    }
  } catch (const std::exception& error) {
    log::debug("its configuration cannot be read: {}", error.what());
  }
  found.remove();
  return std::nullopt;
}

Container Container::open(const std::string& root, const std::string& id) {
  std::optional<Container> found = find(root, id);
  if (!found) throw_usage("container {} does not exist", kelp::quoted(id));
  return std::move(*found);
}

std::vector<std::string> Container::list(const std::string& root) {
  std::vector<std::string> ids;
  DIR* dir = ::opendir(root.c_str());
  if (dir == nullptr) {
    if (errno == ENOENT) return ids;
    throw_errno("open {}", root);
  }
  while (const dirent* entry = ::readdir(dir))
    if (entry->d_name[0] != '.' && (entry->d_type == DT_DIR || entry->d_type == DT_UNKNOWN))
      ids.emplace_back(entry->d_name);
  ::closedir(dir);
  std::sort(ids.begin(), ids.end());
  return ids;
}

void Container::write(const Record& record) {
  stage(record);
  publish();
}

void Container::stage(const Record& record) {
  const std::string text = print_record(record);
  ::unlinkat(dir_.get(), ".state.json", 0);
  write_new(dir_.get(), ".state.json", text);
}

void Container::publish() {
  if (::renameat(dir_.get(), ".state.json", dir_.get(), "state.json") < 0) throw_errno("write {}/state.json", path_);
}

std::optional<Record> Container::read() const {
  const std::optional<std::string> text = sys::read_small_file_at(dir_.get(), "state.json");
  if (!text) return std::nullopt;
  try {
    return parse_record(*text);
  } catch (const nlohmann::json::exception& error) {
    throw_error("{}/state.json is damaged: {}", path_, error.what());
  } catch (Error& error) {
    error.add_context(path_ + "/state.json");
    throw;
  }
}

Record Container::require() const {
  std::optional<Record> record = read();
  if (!record) throw_error("container {} is still being created", kelp::quoted(id_));
  return std::move(*record);
}

spec::RuntimeConfig Container::config() const {
  const auto text = sys::read_small_file_at(dir_.get(), "config.json", spec::kMaxConfigBytes);
  if (!text) throw_error("{}/config.json is missing", path_);
  return spec::parse_runtime_config(*text);
}

Fd Container::pidfd(const Record& record) const {
  if (record.pid <= 0 || record.boot_id != sys::boot_id()) return Fd();
  Fd fd;
  try {
    fd = sys::pidfd_open(record.pid);
  } catch (const SysError& error) {
    if (error.code() == ESRCH) return Fd();
    throw;
  }
  // The pidfd pins the process; only now its start time tells whether it is ours.
  const std::optional<ProcessLook> look = look_at(record.pid);
  if (!look || look->start_time != record.start_time || look->exiting || !sys::pidfd_alive(fd.get())) return Fd();
  return fd;
}

Status Container::status(const std::optional<Record>& record) const {
  if (!record) return Status::creating;
  if (!pidfd(*record)) return Status::stopped;
  struct stat info {};
  if (::fstatat(dir_.get(), "gate", &info, AT_SYMLINK_NOFOLLOW) == 0 || held_by_another()) return Status::created;
  if (!record->cgroup.empty() && cgroup::frozen(record->cgroup)) return Status::paused;
  return Status::running;
}

spec::RuntimeState Container::state(const std::optional<Record>& record) const {
  spec::RuntimeState state;
  state.id = id_;
  const Status now = status(record);
  state.status = status_name(now);
  if (!record) return state;
  state.pid = now == Status::stopped ? 0 : record->pid;
  state.bundle = record->bundle;
  state.rootfs = record->rootfs;
  state.created = record->created;
  struct stat info {};
  if (::fstat(dir_.get(), &info) == 0 && info.st_uid == ::geteuid()) state.owner = sys::own_user_name();
  state.annotations = record->annotations;
  return state;
}

bool Container::held_by_another() const {
  if (lock_) return false;
  const Fd probe = open_dir(path_);
  return probe && ::flock(probe.get(), LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

bool Container::lock(int timeout_ms) {
  if (lock_) return true;
  Fd fd = open_dir(path_);
  if (!fd) return false;  // removed meanwhile
  for (int waited = 0;; waited += 5) {
    if (try_flock(fd.get())) break;
    if (errno != EWOULDBLOCK) throw_errno("lock {}", path_);
    if (waited >= timeout_ms) return false;
    ::usleep(5000);
  }
  lock_ = std::move(fd);
  return true;
}

void Container::remove() noexcept {
  for (const char* name : kFiles) ::unlinkat(dir_.get(), name, 0);
  ::unlinkat(dir_.get(), ".state.json", 0);
  if (::rmdir(path_.c_str()) < 0 && errno != ENOENT) log::warn("cannot remove {}: {}", path_, errno_text(errno));
  lock_.reset();
}

}  // namespace kelp::runtime
