// The story of a start: everything that `run` and `start` do once there is a record.
#include "engine/run.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "cgroup/cgroup.h"
#include "cgroup/entered.h"
#include "cgroup/limits.h"
#include "engine/context.h"
#include "engine/dependencies.h"
#include "engine/events.h"
#include "engine/follow.h"
#include "engine/health.h"
#include "engine/host.h"
#include "engine/login_session.h"
#include "engine/make_spec.h"
#include "engine/monitor_client.h"
#include "engine/prepare.h"
#include "engine/recover.h"
#include "engine/remove.h"
#include "engine/runtime_client.h"
#include "engine/session.h"
#include "engine/trace.h"
#include "monitor/protocol.h"
#include "store/containers.h"
#include "store/health_record.h"
#include "sys/procfs.h"
#include "sys/safe_path.h"
#include "sys/signals.h"

namespace kelp::engine {
namespace {

/// The lock is what keeps a container from being started twice: its monitor holds it until it has ended.
sys::FileLock lock_stopped(Context& context, const store::ContainerRecord& record) {
  store::refuse_newer_state(context.layout, record.id);
  for (int tries = 1;; ++tries) {
    auto lock = sys::FileLock::try_exclusive(store::container_lock(context.layout, record.id));
    const auto status = store::status(context.layout, record).status;
    if (store::can_be_entered(status))
      throw_usage("container {} is already {}", record.name, store::status_name(status));
    if (status == store::Status::exited) {
      store::refuse_newer_exit(context.layout, record.id);
      store::refuse_newer_health(context.layout, record.id);
    }
    if (lock) return std::move(*lock);
    if (tries % 1000 == 300) recover_run_directory(context.layout);
    ::usleep(1000);  // it is about to end, or somebody copies files into it
  }
}

struct Group {
  cgroup::ContainerGroup group;
  GroupPlan plan;
};

Group make_group(Context& context, const store::ContainerRecord& record) {
  Group made;
  if (record.config.cgroups == "disabled" || cgroup::v2_mount().empty()) return made;
  const auto place = cgroup::probe(context.global.cgroup_manager, record.config.cgroup_parent,
                                   context.layout.run + "/cgroups-entered");
  if (place.manager == cgroup::Manager::none) return made;
  made.group = cgroup::ContainerGroup(place, record.id);
  made.plan.path = made.group.path();
  made.plan.leaf = made.group.container_path().substr(cgroup::v2_mount().size());
  made.plan.pids = std::find(place.controllers.begin(), place.controllers.end(), "pids") != place.controllers.end();
  return made;
}

std::pair<Fd, Fd> make_link() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) throw_errno("make a socket pair");
  return {Fd(ends[0]), Fd(ends[1])};
}

std::pair<Fd, Fd> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) throw_errno("make a pipe");
  return {Fd(ends[0]), Fd(ends[1])};
}

void make_run_directories(const Context& context, const std::string& id) {
  for (const auto& path : {context.layout.runtime_root(), context.layout.run_of(id)})
    if (::mkdir(path.c_str(), 0700) < 0 && errno != EEXIST) {
      if (errno != ENOENT) throw_errno("make {}", path);
      sys::mkdirs(path, 0700);  // the whole run directory was taken away meanwhile
    }
}

/// After a start that failed before there was a monitor to clean up.
void clean_after(Context& context, const store::ContainerRecord& record) noexcept {
  try {
    ::rmdir(context.layout.run_of(record.id).c_str());
    // The monitor has removed it already when there was one (and a lock file, too, must not come back).
    if (!record.config.remove || !store::find(context.layout, record.id)) return;
    if (store::status(context.layout, record).run) return;
    RemoveOptions everything;
    everything.volumes = true;
    remove_container(context, record, everything);
  } catch (const Error& error) {
    log::warn("{}", error.message());
  }
}

/// Weights and protected memory are written where containers compete; the runtime writes all limits to the leaf.
void share_weights(const store::ContainerRecord& record, const Group& group) {
  const auto& asked = record.config.resources;
  if (group.plan.path.empty()) return;
  if (!asked.cpu_shares && !asked.memory_reservation && !asked.blkio_weight && asked.blkio_weight_device.empty())
    return;
  cgroup::share_weights(group.plan.path, make_resources(record.config, true, false));
}

/// What it depends on and does not run is started first, each with what it depends on itself.
void start_required(Context& context, const store::ContainerRecord& record, std::optional<sys::FileLock>& held) {
  try {
    for (const auto& name : dependencies(record.config)) {
      const auto other = store::get(context.layout, name);
      const auto status = store::status(context.layout, other).status;
      if (status != store::Status::running && status != store::Status::paused) start_container(context, other, {});
    }
  } catch (const Error&) {
    held.reset();
    clean_after(context, record);
    throw;
  }
}

/// In the foreground the container is tied to us, and we to our caller.
void tie_to_caller(const StartOptions& options, monitor::Plan& plan) {
  const pid_t caller = ::getppid();
  if (options.foreground) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != caller) throw_error("the caller has ended already");
  }
  plan.caller_pid = options.foreground ? ::getpid() : caller;
  plan.caller_start = static_cast<std::int64_t>(sys::start_time(plan.caller_pid));
}

/// One line, and only where it is so: a session manager will take the container with it.
void warn_of_logout(Context& context, const store::ContainerRecord& record, const std::string& group) {
  if (!ends_at_logout(group)) return;
  log::warn("container {} ends when you log out; to let it live: sudo loginctl enable-linger {}", record.name,
            context.host().user_name);
}

/// Where namespaces are refused everything fails somewhere: what is told is who refuses, and what lifts it.
void explain(Context& context, const Error& error) {
  if (error.code() == 0 && error.message().find("not permitted") == std::string::npos &&
      error.message().find("denied") == std::string::npos)
    return;
  const UserNamespaceState state = user_namespace_state(context.host());
  if (state.level == UserNamespaceLevel::none) throw Error(state.why).with_hint(state.hint);
}

/// Those that do not close on exec are the caller's; ours may lie between them.
void close_preserved(unsigned count) {
  for (int fd = 3; fd < 3 + static_cast<int>(count); ++fd) {
    const int flags = ::fcntl(fd, F_GETFD);
    if (flags >= 0 && (flags & FD_CLOEXEC) == 0) ::close(fd);
  }
}

FollowOptions follow_options(const store::ContainerRecord& record, const StartOptions& options) {
  FollowOptions follow;
  follow.in = options.attach_stdin && record.config.interactive;
  follow.out = options.attach_stdout;
  follow.err = options.attach_stderr;
  follow.tty = record.config.tty;
  follow.sig_proxy = options.sig_proxy;
  follow.foreground = options.foreground;
  follow.detach_keys = options.detach_keys;
  follow.last_words = options.last_words;
  return follow;
}

constexpr std::uint32_t kVersionOfOpenGate = 4;

/// `init` has done everything but the last step.
StartResult open_gate(Context& context, const store::ContainerRecord& record, const FollowOptions& streams,
                      const StartOptions& options) {
  const sys::SignalMask mask(followed_signals());
  const sys::SignalFd signals(followed_signals());
  const auto link = connect_monitor(context, record.id);
  if (!link || link->version < kVersionOfOpenGate)
    throw_error("the monitor of container {} cannot be reached", record.name);
  ask_to_attach(link->socket.get(), streams);
  monitor::send_frame(link->socket.get(), {.type = monitor::Msg::open_gate}, {}, {}, true);
  const int pid = wait_until_started(link->socket.get());
  if (options.started) options.started();
  if (!options.foreground) return {.detached = true};
  if (streams.in || streams.out || streams.err) emit_event(context, record, "attach");
  const FollowResult result = follow(link->socket.get(), pid, streams, signals);
  if (result.lost) throw_error("the monitor of container {} was killed, and the container with it", record.name);
  return {.detached = result.detached, .exit_code = result.code};
}

}  // namespace

StartResult start_container(Context& context, const store::ContainerRecord& record, const StartOptions& options,
                            std::optional<sys::FileLock> held) {
  const FollowOptions streams = follow_options(record, options);
  parse_detach_keys(streams.detach_keys);
  start_required(context, record, held);
  if (!held && !options.init_only && store::status(context.layout, record).status == store::Status::initialized)
    return open_gate(context, record, streams, options);
  // From here on a signal waits until there is a container that it can be passed on to.
  std::optional<sys::SignalMask> mask;
  std::optional<sys::SignalFd> signals;
  if (options.foreground) {
    mask.emplace(followed_signals());
    signals.emplace(followed_signals());
  }

  // First of all: its child maps ids while everything else is prepared.
  UpcomingUserns upcoming(context, held ? held->fd() : -1);
  auto lock = held ? std::move(*held) : lock_stopped(context, record);  // 1. nobody else starts it
  auto [link, far_link] = make_link();
  bool monitored = false;
  Group group;  // removed again unless a monitor has taken it over
  sys::Child session;
  try {
    clear_remains(context, record.id);
    group = step("make the cgroup", [&] { return make_group(context, record); });                                  // 2.
    const StartPlan plan = step("prepare the start", [&] { return prepare_start(context, record, group.plan); });  // 3.
    for (const auto& warning : plan.warnings) log::warn("{}", warning);
    make_run_directories(context, record.id);
    auto monitor_plan = make_monitor_plan(context, record, plan, group.plan, options.preserve_fds);
    plan_health_check(record, plan.bundle, plan.config_json, monitor_plan);
    monitor_plan.event_attach = options.foreground && (streams.in || streams.out || streams.err);
    monitor_plan.stay_at_gate = options.init_only;
    if (options.die_with_parent) tie_to_caller(options, monitor_plan);
    if (options.trace != nullptr && monitor_plan.own_runtime) {
      for (const auto& word : {std::string("--trace-file"), options.trace->share(monitor_plan.run_dir)})
        monitor_plan.create_args.push_back(word);
    }
    const Fd file = plan_file(monitor_plan);
    ask_to_attach(link.get(), streams);
    SessionRequest request;
    request.start = &plan;
    request.link = far_link.get();
    request.plan = file.get();
    request.lock = lock.fd();
    request.preserve_fds = options.preserve_fds;
    request.upcoming = &upcoming;
    // One of a child user namespace must be that one's own; joined and host networks have no need.
    request.new_network = plan.new_network && monitor_plan.own_runtime && record.uid_map.empty();
    request.passthrough = monitor_plan.log_driver == "passthrough";
    auto gate = make_pipe();
    request.gate = &gate.first;
    request.gate_far = &gate.second;
    const bool group_comes_later = group.group.comes_later();  // a systemd scope
    if (!group_comes_later) share_weights(record, group);
    const bool owners_are_given = plan.root_uid != 0;
    if (owners_are_given) write_bundle(plan);
    session = step("start the session", [&] { return start_session(context, request); });  // 4. becomes the monitor
    gate.first.reset();
    // The container has them now: who reads the other end must see it when the container closes its own.
    close_preserved(options.preserve_fds);
    // While the session makes its mounts:
    if (!owners_are_given) step("write the bundle", [&] { write_bundle(plan); });
    if (group_comes_later) {
      step("wait for the cgroup", [&] {
        group.group.adopt(session.pid);
        group.group.wait();
        share_weights(record, group);
      });
    }
    if (::write(gate.second.get(), "g", 1) != 1) throw_errno("let the monitor start");
    gate.second.reset();
    far_link.reset();
    lock.unlock();  // ours: the monitor has its own
    // 5. runtime, network, gate
    const int pid = wait_until_started(link.get());
    monitored = true;
    if (options.started) options.started();
    group.group.release();
    upcoming.hand_over(session.pid);
    session.detach();
    if (!options.foreground) {
      if (!options.die_with_parent) warn_of_logout(context, record, group.plan.path);
      return {.detached = true};
    }
    const FollowResult result = follow(link.get(), pid, streams, *signals);  // 6. streams until it ends
    if (result.lost) throw_error("the monitor of container {} was killed, and the container with it", record.name);
    return {.detached = result.detached, .exit_code = result.code};
  } catch (const Error& error) {
    if (!monitored) {
      link.reset();
      far_link.reset();
      lock.unlock();
      if (session.valid()) session.wait();  // it undoes what it has done
      clean_after(context, record);
      explain(context, error);
    }
    throw;
  }
}

}  // namespace kelp::engine
