// The only place that writes plans for kelp-monitor and connects to one.
#include "engine/monitor_client.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"
#include "cgroup/cgroup.h"
#include "engine/context.h"
#include "engine/events.h"
#include "engine/journal.h"
#include "engine/runtime_client.h"
#include "store/containers.h"
#include "sys/lock.h"
#include "sys/pty.h"
#include "sys/signals.h"

namespace kelp::engine {
namespace {

constexpr int kAnswerSeconds = 10;

/// The monitor works in "/".
std::string absolute(const std::string& path) {
  if (path.empty() || path.front() == '/') return path;
  char* const here = ::getcwd(nullptr, 0);
  if (here == nullptr) throw_errno("find the current directory");
  const std::string full = std::string(here) + "/" + path;
  std::free(here);
  return full;
}

void plan_log(const Context& context, const store::ContainerRecord& record, monitor::Plan& plan) {
  plan.log_driver = record.config.log_driver.empty() ? "k8s-file" : record.config.log_driver;
  if (plan.log_driver == "journald") {
    check_journal();
    plan.log_path = kJournalSocket;
    plan.log_fields = journal_fields(record);
    return;
  }
  plan.log_path = context.layout.container(record.id) + "/ctr.log";
  for (const auto& [key, value] : record.config.log_options) {
    if (key == "path") plan.log_path = absolute(value);
    if (key == "max-size") plan.log_max_size = parse_size(value, "log option max-size");
    if (key == "max-file") plan.log_max_files = to_int(value, 1).value_or(plan.log_max_files);
  }
}

void plan_removal(const Context& context, const store::ContainerRecord& record, monitor::Plan& plan) {
  const auto& layout = context.layout;
  plan.remove = record.config.remove;
  if (!plan.remove) return;
  plan.names_dir = layout.names();
  plan.trash_dir = layout.trash();
  plan.containers_dir = layout.containers();
  plan.volumes_dir = layout.volumes();
  plan.lock_path = store::container_lock(layout, record.id);
  plan.anonymous_volumes = record.anonymous_volumes;
}

}  // namespace

monitor::Plan make_monitor_plan(Context& context, const store::ContainerRecord& record, const StartPlan& start,
                                const GroupPlan& group, unsigned preserve_fds) {
  const auto& config = record.config;
  monitor::Plan plan;
  plan.id = record.id;
  plan.name = record.name;
  plan.bundle = start.bundle;
  plan.run_dir = context.layout.run_of(record.id);
  plan.exit_file = context.layout.container(record.id) + "/exit.json";
  if (start.rootfs.empty()) plan.merged = start.bundle + "/merged";
  for (const auto& subpath : start.subpaths) plan.mounts.push_back(subpath.place);
  for (const auto& overlay : start.overlays) plan.mounts.push_back(overlay.directory + "/mnt");
  if (start.shm_of != 0) plan.mounts.push_back(start.bundle + "/shm");
  plan.hold_mounts =
      config.mounts.empty() && config.volumes_from.empty() && config.rootfs.empty() && record.anonymous_volumes.empty();
  plan.boot = store::boot_id();
  plan.cgroup = group.path;
  plan.cgroup_leaf = group.leaf;
  plan.pid_file = absolute(config.pidfile);
  plan.runtime = runtime_argv(context, !group.path.empty());
  plan.create_args = runtime_create_args(context);
  plan.own_runtime = is_own_runtime(context);
  // Without poststop hooks (--hooks-dir), and since the group is the monitor's: `kelp-oci delete` would find a
  // directory to remove, and nothing else (it costs 1 ms).
  if (plan.own_runtime && !start.poststop_hooks) plan.state_dir = context.layout.runtime_root() + "/" + record.id;
  plan.slirp = start.network.slirp_argv;
  for (const auto& [request, words] : start.network.hostfwd) plan.forwards.emplace_back(words, request);
  plan_log(context, record, plan);
  plan.tty = start.tty;
  plan.interactive = config.interactive;
  plan.preserve_fds = preserve_fds;
  for (const int fd : {0, 1, 2}) {
    const auto size = plan.tty ? sys::window_size(fd) : std::nullopt;
    if (!size || size->rows == 0) continue;
    plan.rows = size->rows;
    plan.columns = size->columns;
    break;
  }
  if (context.global.keep_events) plan.events = context.layout.events();
  plan.event_subject = event_subject(record);
  if (const char* socket = std::getenv("NOTIFY_SOCKET");
      socket != nullptr && *socket != '\0' && config.sdnotify != "ignore") {
    plan.notify_socket = socket;
    plan.notify = config.sdnotify;
  }
  plan.monitor_pid_file = absolute(config.conmon_pidfile);
  plan.restart = config.restart_policy.empty() ? "no" : config.restart_policy;
  plan.restart_max = config.restart_max;
  if (!start.stop_signal.empty()) plan.stop_signal = sys::signal_from_name(start.stop_signal);
  plan.stop_timeout = config.stop_timeout.value_or(10);
  plan.timeout = config.timeout;
  plan_removal(context, record, plan);
  return plan;
}

Fd plan_file(const monitor::Plan& plan) {
  Fd file(::memfd_create("monitor-plan", MFD_CLOEXEC));
  if (!file) throw_errno("make the monitor's plan");
  sys::write_all(file.get(), monitor::encode(plan), "the monitor's plan");
  if (::lseek(file.get(), 0, SEEK_SET) < 0) throw_errno("rewind the monitor's plan");
  return file;
}

std::optional<MonitorLink> connect_monitor(const Context& context, const std::string& id) {
  const Fd dir(::open(context.layout.run_of(id).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!dir) return std::nullopt;
  MonitorLink link;
  link.socket = monitor::connect_at(dir.get(), "attach.sock");
  if (!link.socket) return std::nullopt;
  const timeval limit{.tv_sec = kAnswerSeconds, .tv_usec = 0};
  ::setsockopt(link.socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  if (monitor::send_frame(link.socket.get(), {.type = monitor::Msg::hello, .value = monitor::kVersion}, {}, {}, true) !=
      monitor::Sent::yes)
    return std::nullopt;
  monitor::Frame frame;
  const auto received = monitor::receive_frame(link.socket.get(), frame, true);
  if (received == monitor::Received::gone) return std::nullopt;  // it was about to end
  if (received == monitor::Received::nothing)
    throw_error("the monitor of container {} does not answer", id.substr(0, 12));
  if (frame.header.type != monitor::Msg::hello)
    throw_error("the monitor of container {} speaks another protocol", id.substr(0, 12));
  link.version = std::min(frame.header.value, monitor::kVersion);
  const timeval none{};
  ::setsockopt(link.socket.get(), SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
  return link;
}

}  // namespace kelp::engine
