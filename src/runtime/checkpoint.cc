// Checkpoint and restore are criu's work. Ours is to tell it what of the container belongs to the host: the bind
// mounts, the devices, namespaces that are joined and the root filesystem come from the bundle again, the pipes of the
// standard descriptors from whoever restores it. Names and files are runc's, so that either can restore what the other
// has written; the network is engines' to set up, so its settings are never kept.
#include "runtime/checkpoint.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <nlohmann/json.hpp>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/log.h"
#include "base/program_path.h"
#include "base/text.h"
#include "cgroup/cgroup.h"
#include "runtime/bundle.h"
#include "runtime/container.h"
#include "runtime/devices.h"
#include "runtime/plan_mounts.h"
#include "runtime/rootfs.h"
#include "runtime/terminal.h"
#include "sys/lock.h"
#include "sys/procfs.h"
#include "sys/safe_path.h"
#include "sys/signals.h"
#include "sys/spawn.h"

namespace kelp::runtime {
namespace {

constexpr int kLockTimeoutMs = 10'000;

std::string find_criu(const CriuOptions& criu) {
  const std::string name = criu.program.empty() ? "criu" : criu.program;
  std::string path = name.find('/') == std::string::npos ? find_in_path(name) : name;
  if (path.empty() || ::access(path.c_str(), X_OK) < 0)
    throw Error(fmt::format("{} is not installed: it does the work of checkpoint and restore", name))
        .with_hint("install the package criu");
  return path;
}

std::string absolute(const std::string& path) {
  if (starts_with(path, "/")) return path;
  char cwd[4096];
  if (::getcwd(cwd, sizeof cwd) == nullptr) throw_errno("find the current directory");
  return std::string(cwd) + "/" + path;
}

/// The last lines of criu's log, which say why.
std::string end_of_log(const std::string& path) {
  const auto text = sys::read_small_file(path, 16U << 20U);
  std::string errors;
  for (const std::string& line : split(text.value_or(""), '\n'))
    if (line.find("Error") != std::string::npos) errors += (errors.empty() ? "" : "; ") + std::string(trim(line));
  return errors.size() > 2000 ? errors.substr(errors.size() - 2000) : errors;
}

void run_criu(const CriuOptions& criu, std::vector<std::string> argv, const std::string& log_path,
              std::vector<std::pair<int, int>> fds = {}) {
  sys::SpawnRequest request;
  request.fds = std::move(fds);
  request.path = find_criu(criu);
  argv.insert(argv.begin(), "criu");
  request.argv = std::move(argv);
  log::debug("{}", join(request.argv, " "));
  const sys::Captured done = sys::run_captured(request);
  if (done.status == 0) return;
  const std::string why = end_of_log(log_path);
  throw Error(fmt::format("criu failed: {}", why.empty() ? std::string(trim(done.err)) : why))
      .with_hint("its log is " + log_path);
}

void add_common(std::vector<std::string>& argv, const CriuOptions& criu, const std::string& log_name) {
  const std::string images = absolute(criu.image_dir);
  const std::string work = criu.work_dir.empty() ? images : absolute(criu.work_dir);
  sys::mkdirs(images, 0700);
  sys::mkdirs(work, 0700);
  argv.insert(argv.end(), {"--images-dir", images, "--work-dir", work, "--log-file", log_name, "-v4"});
  if (criu.tcp_established) argv.emplace_back("--tcp-established");
  if (criu.ext_unix_sk) argv.emplace_back("--ext-unix-sk");
  if (criu.shell_job) argv.emplace_back("--shell-job");
  if (criu.file_locks) argv.emplace_back("--file-locks");
  if (criu.tcp_skip_in_flight) argv.emplace_back("--skip-in-flight");
  if (criu.lazy_pages) argv.emplace_back("--lazy-pages");
  if (criu.auto_dedup) argv.emplace_back("--auto-dedup");
  argv.insert(argv.end(), {"--empty-ns", "net"});
  argv.push_back(criu.manage_cgroups.empty() ? "--manage-cgroups" : "--manage-cgroups=" + criu.manage_cgroups);
}

std::string log_path(const CriuOptions& criu, const std::string& name) {
  return absolute(criu.work_dir.empty() ? criu.image_dir : criu.work_dir) + "/" + name;
}

/// Bind mounts, devices and masks stand in the images by a name, and come from the host again on restore: a mount or a
/// device by its place in the container, all masks together as /dev/null.
///
/// pid  of the container that is written, 0 = one is restored
void add_mounts(std::vector<std::string>& argv, const spec::RuntimeConfig& config, const std::string& bundle,
                pid_t pid) {
  const auto external = [&](const std::string& one, const std::string& other) {
    argv.emplace_back("--external");
    argv.push_back(fmt::format("mnt[{}]:{}", one, other));
  };
  const MountPlan mounts = plan_mounts(config, bundle);
  for (const MountOp& op : mounts.ops)
    if (op.kind == MountKind::bind) external(op.destination, pid != 0 ? op.destination : op.source);
  for (const std::string& path : device_paths(config.linux_.devices, mounts.own_dev)) external(path, path);
  if (pid == 0 && !config.linux_.masked_paths.empty()) external("/dev/null", "/dev/null");
  for (const std::string& path : config.linux_.masked_paths) {
    struct stat info {};
    if (pid != 0 && ::stat(fmt::format("/proc/{}/root{}", pid, path).c_str(), &info) == 0 && !S_ISDIR(info.st_mode))
      external(path, "/dev/null");
  }
}

/// Namespaces that a configuration joins are somebody else's; criu knows these kinds.
struct SharedNamespace {
  const char* kind;
  const char* word;
  const char* name;
};
constexpr SharedNamespace kShared[] = {{"network", "net", "extRootNetNS"}, {"pid", "pid", "extRootPidNS"}};

void leave_out_shared_namespaces(std::vector<std::string>& argv, const spec::RuntimeConfig& config) {
  for (const SharedNamespace& shared : kShared) {
    const spec::Namespace* entry = config.find_namespace(shared.kind);
    if (entry == nullptr || entry->path.empty()) continue;
    struct stat info {};
    if (::stat(entry->path.c_str(), &info) < 0) throw_errno("look at the {} namespace {}", shared.kind, entry->path);
    argv.insert(argv.end(), {"--external", fmt::format("{}[{}]:{}", shared.word, info.st_ino, shared.name)});
  }
}

/// What a restored process gets from us: {number in criu, ours}, and those that we have opened for it.
struct Inherited {
  std::vector<std::pair<int, int>> fds;
  std::vector<Fd> opened;

  void add(std::vector<std::string>& argv, int fd, const std::string& name) {
    const int number = 100 + static_cast<int>(fds.size());
    argv.insert(argv.end(), {"--inherit-fd", fmt::format("fd[{}]:{}", number, name)});
    fds.emplace_back(number, fd);
  }
};

void give_shared_namespaces(std::vector<std::string>& argv, const spec::RuntimeConfig& config, Inherited& inherited) {
  for (const SharedNamespace& shared : kShared) {
    const spec::Namespace* entry = config.find_namespace(shared.kind);
    if (entry == nullptr || entry->path.empty()) continue;
    Fd fd(::open(entry->path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) throw_errno("open the {} namespace {}", shared.kind, entry->path);
    inherited.add(argv, fd.get(), shared.name);
    inherited.opened.push_back(std::move(fd));
  }
}

std::string descriptors_path(const CriuOptions& criu) { return absolute(criu.image_dir) + "/descriptors.json"; }

/// Beside the images: what the first process has as its three standard descriptors.
void write_descriptors(const CriuOptions& criu, pid_t pid) {
  nlohmann::json names = nlohmann::json::array();
  for (int fd = 0; fd < 3; ++fd) {
    char name[PATH_MAX];
    const ssize_t size = ::readlink(fmt::format("/proc/{}/fd/{}", pid, fd).c_str(), name, sizeof name);
    names.push_back(std::string(name, size > 0 ? static_cast<size_t>(size) : 0));
  }
  sys::replace_file(descriptors_path(criu), names.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), 0600);
}

/// Those that were pipes are ours now; criu opens files and devices again by itself.
void give_pipes(std::vector<std::string>& argv, const CriuOptions& criu, Inherited& inherited) {
  const std::string path = descriptors_path(criu);
  const auto text = sys::read_small_file(path, 64U << 10U);
  if (!text) return;
  try {
    const auto names = nlohmann::json::parse(*text).get<std::vector<std::string>>();
    for (size_t fd = 0; fd < names.size() && fd < 3; ++fd)
      if (starts_with(names[fd], "pipe:[")) inherited.add(argv, static_cast<int>(fd), names[fd]);
  } catch (const nlohmann::json::exception& error) {
    throw_error("{} is damaged: {}", path, error.what());
  }
}

/// criu wants a root filesystem that is a mount point; the caller's own view of it is not changed beyond that.
void mount_over_itself(const std::string& rootfs) { attach_root_in_place(rootfs); }

Record make_record(const CreateOptions& options, const Bundle& bundle, pid_t pid) {
  Record record;
  record.id = options.id;
  record.pid = pid;
  record.start_time = sys::start_time(pid);
  record.boot_id = sys::boot_id();
  record.bundle = bundle.dir;
  record.rootfs = bundle.rootfs;
  record.created = format_rfc3339(std::chrono::system_clock::now());
  record.cgroup = cgroup::group_of(pid);
  record.poststop = !bundle.config.hooks.poststop.empty();
  record.annotations = bundle.config.annotations;
  // Where it shares our group, the group is not its own.
  if (record.cgroup == cgroup::group_of(0)) record.cgroup.clear();
  record.cgroup_made = !record.cgroup.empty();
  return record;
}

}  // namespace

void checkpoint_container(const std::string& root, const std::string& id, const CriuOptions& criu) {
  (void)find_criu(criu);
  Container container = Container::open(root, id);
  if (!container.lock(kLockTimeoutMs)) throw_error("container {} is in use by another command", id);
  const Record record = container.require();
  const Status status = container.status(record);
  if (status != Status::running && status != Status::paused)
    throw_error("cannot checkpoint a container that is not running: {}", status_name(status));
  std::vector<std::string> argv = {criu.pre_dump ? "pre-dump" : "dump", "--tree", std::to_string(record.pid)};
  add_common(argv, criu, "dump.log");
  if (!criu.parent_dir.empty()) argv.insert(argv.end(), {"--prev-images-dir", criu.parent_dir});
  if (!criu.parent_dir.empty() || criu.pre_dump) argv.emplace_back("--track-mem");
  if (criu.leave_running) argv.emplace_back("--leave-running");
  if (!criu.page_server.empty()) {
    const size_t colon = criu.page_server.rfind(':');
    if (colon == std::string::npos) throw_usage("option --page-server: {} is not ADDRESS:PORT", criu.page_server);
    argv.insert(argv.end(), {"--page-server", "--address", criu.page_server.substr(0, colon), "--port",
                             criu.page_server.substr(colon + 1)});
  }
  if (criu.status_fd >= 0) argv.insert(argv.end(), {"--status-fd", std::to_string(criu.status_fd)});
  if (!record.cgroup.empty()) argv.insert(argv.end(), {"--freeze-cgroup", record.cgroup});
  const spec::RuntimeConfig config = container.config();
  leave_out_shared_namespaces(argv, config);
  if (!criu.pre_dump) {  // which writes memory alone
    add_mounts(argv, config, record.bundle, record.pid);
    write_descriptors(criu, record.pid);
  }
  std::vector<std::pair<int, int>> fds;
  if (criu.status_fd >= 0) fds.emplace_back(criu.status_fd, criu.status_fd);
  step("checkpoint", [&] { run_criu(criu, std::move(argv), log_path(criu, "dump.log"), std::move(fds)); });
  if (criu.leave_running || criu.pre_dump) return;
  destroy_container(container);
}

int restore_container(const CreateOptions& options, const CriuOptions& criu) {
  (void)find_criu(criu);
  const Bundle bundle = step("bundle", [&] { return load_bundle(options.bundle, options.config, options.rootless); });
  if (bundle.config.process && bundle.config.process->terminal)
    throw_error("process.terminal: a container with a terminal of its own cannot be restored");
  Container container = step("state", [&] { return Container::reserve(options.root, options.id, bundle.config_text); });
  Rollback undo;
  undo.add([&] { container.remove(); });
  std::optional<sys::SignalMask> mask;
  if (!options.detach) mask.emplace(forwarded_signals());
  // The restored processes become our children, as criu goes away.
  if (!options.detach && ::prctl(PR_SET_CHILD_SUBREAPER, 1) < 0) throw_errno("become a subreaper");

  step("root filesystem", [&] { mount_over_itself(bundle.rootfs); });
  undo.add([&] { detach_root(bundle.rootfs); });
  const std::string pid_file = container.path() + "/pid";
  std::vector<std::string> argv = {"restore", "--restore-detached", "--pidfile", pid_file, "--root", bundle.rootfs};
  add_common(argv, criu, "restore.log");
  if (!criu.lsm_profile.empty()) argv.insert(argv.end(), {"--lsm-profile", criu.lsm_profile});
  if (!criu.lsm_mount_context.empty()) argv.insert(argv.end(), {"--lsm-mount-context", criu.lsm_mount_context});
  add_mounts(argv, bundle.config, bundle.dir, 0);
  Inherited inherited;
  give_shared_namespaces(argv, bundle.config, inherited);
  give_pipes(argv, criu, inherited);
  step("restore", [&] { run_criu(criu, std::move(argv), log_path(criu, "restore.log"), std::move(inherited.fds)); });
  const auto pid = to_int(trim(sys::read_file(pid_file, 64)), 1);
  ::unlink(pid_file.c_str());
  if (!pid) throw_error("restore: criu has not said which process it restored");

  Record record = make_record(options, bundle, static_cast<pid_t>(*pid));
  record.mounted_rootfs = true;
  container.write(record);
  undo.commit();
  if (!options.pid_file.empty()) sys::replace_file(options.pid_file, std::to_string(*pid), 0644);
  container.unlock();
  if (options.detach) return 0;
  // It is our child, and stays until we have reaped it, however soon it ends.
  sys::Child first{record.pid, sys::pidfd_open(record.pid)};
  wait_passing_signals(first.pidfd.get());
  const int code = first.wait();
  if (!options.keep && container.lock(kLockTimeoutMs)) destroy_container(container);
  return code;
}

}  // namespace kelp::runtime
