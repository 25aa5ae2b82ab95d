#include "runtime/create.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "cgroup/cgroup.h"
#include "runtime/container.h"
#include "runtime/first_process.h"
#include "runtime/hooks.h"
#include "runtime/init.h"
#include "runtime/node_settings.h"
#include "runtime/start_gate.h"
#include "runtime/terminal.h"
#include "sys/link.h"
#include "sys/lock.h"
#include "sys/namespaces.h"
#include "sys/procfs.h"
#include "sys/sd_bus.h"
#include "sys/signals.h"
#include "sys/trace.h"

namespace kelp::runtime {
namespace {

enum class Mode { create, run };

/// One container on its way: what must be undone when a step fails, in members that undo themselves.
struct Creation {
  const CreateOptions& options;
  Mode mode;
  InitPlan plan;
  std::optional<Container> container;
  cgroup::Leaf group;
  Rollback undo;
  std::optional<ParentLink> link;
  sys::Child first;
  sys::Link console;  ///< foreground terminal: the master arrives here
  Fd master;          ///< of that terminal

  [[nodiscard]] bool foreground() const { return mode == Mode::run && !options.detach; }
};

/// LISTEN_FDS of socket activation counts as preserved descriptors, as in runc.
void pass_listen_fds(spec::Process& process, int& preserve_fds) {
  const char* count = ::getenv("LISTEN_FDS");
  if (count == nullptr) return;
  const auto fds = to_int(count, 1, 1000);
  if (!fds) return;
  preserve_fds += static_cast<int>(*fds);
  process.env.push_back(fmt::format("LISTEN_FDS={}", *fds));
  process.env.emplace_back("LISTEN_PID=1");
}

void check_preserved(int preserve_fds) {
  for (int fd = 3; fd < 3 + preserve_fds; ++fd) {
    const int flags = ::fcntl(fd, F_GETFD);
    if (flags < 0) throw_usage("--preserve-fds {}: descriptor {} is not open", preserve_fds, fd);
    if (::fcntl(fd, F_SETFD, flags & ~FD_CLOEXEC) < 0) throw_errno("keep descriptor {}", fd);
  }
}

bool in_user_namespace() {
  const auto map = sys::try_read_file("/proc/self/uid_map");
  return !map || map->find("4294967295") == std::string::npos;
}

void make_plan(Creation& c) {
  InitPlan& plan = c.plan;
  plan.preserve_fds = c.options.preserve_fds;
  check_preserved(plan.preserve_fds);
  plan.bundle = step("bundle", [&] { return load_bundle(c.options.bundle, c.options.config, c.options.rootless); });
  spec::RuntimeConfig& config = plan.bundle.config;
  if (!config.process) throw_error("{}/config.json: process: is missing", plan.bundle.dir);
  pass_listen_fds(*config.process, plan.preserve_fds);
  plan.namespaces = plan_namespaces(config, {::geteuid(), ::getegid()});
  plan.mounts = plan_mounts(config, plan.bundle.dir);
  plan.net_devices = look_at_net_devices(config.linux_.net_devices);
  plan.privileges = plan_privileges(*config.process);
  const auto groups = config.annotations.find("run.oci.keep_original_groups");
  plan.privileges.keep_groups = groups != config.annotations.end() && groups->second == "1";
  if (config.linux_.seccomp)
    plan.seccomp = step("seccomp filter", [&] { return cached_seccomp(*config.linux_.seccomp, seccomp_cache_dir()); });
  plan.proc = ExecLabels::open_proc(*config.process);
  plan.no_pivot = c.options.no_pivot;
  plan.new_keyring = !c.options.no_new_keyring;
  if (config.process->oom_score_adj)
    plan.in_user_namespace = plan.namespaces.new_user || plan.namespaces.joined_user || in_user_namespace();
  plan.die_with_parent = c.options.die_with_parent;
  plan.state.id = c.options.id;
  plan.state.bundle = plan.bundle.dir;
  plan.state.rootfs = plan.bundle.rootfs;
  plan.state.status = "creating";
  plan.state.annotations = config.annotations;
}

/// Where the terminal's master goes: the caller's socket, or ours for a run in the foreground.
void open_console(Creation& c) {
  const bool terminal = c.plan.bundle.config.process->terminal;
  if (!c.options.console_socket.empty()) {
    if (!terminal) throw_usage("--console-socket is for containers with a terminal (process.terminal)");
    c.plan.console_socket = connect_socket("console socket", c.options.console_socket);
  } else if (terminal) {
    if (!c.foreground()) throw_usage("a container with a terminal (process.terminal) needs --console-socket");
    auto [ours, theirs] = sys::Link::pair();
    c.console = std::move(ours);
    c.plan.console_socket = theirs.release();
  }
}

/// Who must not be outlived: with a detached container that is our parent, who is then the container's parent, too.
void watch_parent(Creation& c) {
  if (!c.options.die_with_parent) return;
  const pid_t watched = c.foreground() ? ::getpid() : ::getppid();
  if (watched > 0) c.plan.watch = sys::pidfd_open(watched);
}

void make_group(Creation& c) {
  const spec::Linux& config = c.plan.bundle.config.linux_;
  if (c.options.no_cgroup) return;
  c.group = cgroup::make_leaf(config.cgroups_path, c.options.id, config.resources, c.options.systemd_cgroup);
  if (c.group.made) c.undo.add([&c] { (void)cgroup::remove_tree(c.group.path); });
}

void tell_holder(const Creation& c, const char* what) {
  if (c.options.hold_fd < 0) return;
  const std::string line = fmt::format("{} {}\n", what, c.first.pid);
  // Whether it still lives is noticed in hold().
  (void)!::send(c.options.hold_fd, line.data(), line.size(), MSG_NOSIGNAL);
}

/// A network namespace that was made beside our own work. We enter it ourselves, so that the first process is born in
/// it; hooks of the runtime's side must not find themselves there.
void take_network(Creation& c) {
  NamespacePlan& namespaces = c.plan.namespaces;
  if (c.options.network_fd < 0) return;
  sys::Link from(Fd(c.options.network_fd));
  if (!namespaces.has_new(CLONE_NEWNET) || namespaces.new_user || namespaces.joined_user || namespaces.staged ||
      !c.plan.bundle.config.hooks.empty() || !c.plan.bundle.config.linux_.net_devices.empty())
    return;
  const auto frame = from.receive();
  if (!frame || frame->fds.empty()) return;
  step("join the network namespace", [&] { sys::join(frame->fds[0].get(), CLONE_NEWNET); });
  namespaces.clone_flags &= ~static_cast<std::uint64_t>(CLONE_NEWNET);
}

void start_process(Creation& c) {
  // A first process whose user is not ours may be unable to reach the caller's directories: open them for it.
  const bool open_all = (c.plan.namespaces.new_user || c.plan.namespaces.joined_user) && ::geteuid() == 0 &&
                        !sys::new_mount_calls_refused();
  step("mount sources", [&] { c.plan.sources = open_mount_sources(c.plan.mounts, c.plan.bundle.rootfs, open_all); });
  if (!c.plan.namespaces.own_mounts) {
    c.plan.sources.rootfs = step("root filesystem", [&] { return attach_root_in_place(c.plan.bundle.rootfs); });
    c.undo.add([&c] {
      c.first.kill();
      detach_root(c.plan.bundle.rootfs);
    });
  }
  take_network(c);
  auto [ours, theirs] = sys::Link::pair();
  c.link.emplace(std::move(ours));
  const FirstProcessOptions options{
      .cgroup_fd = c.group.fd ? c.group.fd.get() : -1,
      .sibling = c.options.die_with_parent && !c.foreground(),
      .oom_score_adj = c.plan.bundle.config.process->oom_score_adj,
      .enter_group = [&c](pid_t pid) { cgroup::move_by_systemd(c.group.scope, c.group.path, pid); }};
  c.first = start_first_process(c.plan.namespaces, options, *c.link, std::move(theirs), [&](ChildLink link) {
    c.container.reset();  // a clone shares the lock and would keep it
    c.group.fd.reset();
    c.console.close();
    if (c.options.hold_fd >= 0) ::close(c.options.hold_fd);
    return run_init(c.plan, std::move(link));
  });
  tell_holder(c, "cloned");
  c.group.holder.reset();  // the scope lives by the container now
  c.plan.gate.reset();
  c.plan.console_socket.reset();
}

void stage_record(Creation& c) {
  Record record;
  record.id = c.options.id;
  record.pid = c.first.pid;
  record.start_time = sys::start_time(c.first.pid);
  record.boot_id = sys::boot_id();
  record.bundle = c.plan.bundle.dir;
  record.rootfs = c.plan.bundle.rootfs;
  record.created = format_rfc3339(std::chrono::system_clock::now());
  record.cgroup = c.group.path;
  record.cgroup_made = c.group.made;
  record.cgroup_scope = c.group.scope;
  record.mounted_rootfs = !c.plan.namespaces.own_mounts;
  record.poststop = !c.plan.bundle.config.hooks.poststop.empty();
  record.annotations = c.plan.bundle.config.annotations;
  c.container->stage(record);
}

/// Serves the first process until it is ready. The record is made beside its work, but not while it waits for ids.
void serve_until_ready(Creation& c) {
  bool staged = false;
  bool waits_for_ids = maps_itself(c.plan.namespaces);
  for (;;) {
    if (!staged && !waits_for_ids) {
      step("state", [&] { stage_record(c); });
      staged = true;
    }
    const ParentLink::Event event = c.link->require("create the container");
    switch (event.msg) {
      case Msg::map_ids:
        step("map ids", [&] { sys::write_id_maps(c.first.pid, c.plan.namespaces.maps); });
        waits_for_ids = false;
        break;
      case Msg::net_devices:
        if (event.fds.empty()) throw_error("no network namespace has come with the request for network devices");
        move_net_devices(c.plan.net_devices, event.fds[0].get());
        break;
      case Msg::hooks: {
        const spec::Hooks& hooks = c.plan.bundle.config.hooks;
        spec::RuntimeState state = c.plan.state;
        state.pid = c.first.pid;
        // Those who wrote prestart hooks were told that the container is created then; createRuntime has the truth.
        state.status = "created";
        run_hooks("prestart", hooks.prestart, spec::print_state(state), c.plan.bundle.dir);
        state.status = "creating";
        run_hooks("createRuntime", hooks.create_runtime, spec::print_state(state), c.plan.bundle.dir);
        break;
      }
      case Msg::ready:
        return;
      default:
        throw_error("unexpected message of the container's first process");
    }
    c.link->go();
  }
}

void publish_record(Creation& c) {
  c.container->publish();
  if (!c.options.pid_file.empty()) sys::replace_file(c.options.pid_file, std::to_string(c.first.pid), 0644);
  if (!c.options.pidfd_socket.empty())
    sys::send_fd(connect_socket("pidfd socket", c.options.pidfd_socket).get(), "pidfd", c.first.pidfd.get());
}

/// THE PARENT'S STORY, up to the moment when the container is created: the first process stands before its gate.
void create(Creation& c) {
  make_plan(c);
  step("console", [&] { open_console(c); });
  watch_parent(c);
  c.container =
      step("state", [&] { return Container::reserve(c.options.root, c.options.id, c.plan.bundle.config_text); });
  c.undo.add([&c] { c.container->remove(); });
  step("cgroup", [&] { make_group(c); });
  if (c.mode == Mode::create) c.plan.gate = make_gate(c.container->dir());
  c.undo.add([&c] { c.first.kill(); });
  step("first process", [&] { start_process(c); });
  serve_until_ready(c);
  if (c.console.valid()) c.master = receive_terminal(c.console, c.plan.bundle.config.process->console_size);
  step("state", [&] { publish_record(c); });
}

/// hold: says that the container is created and waits for the caller's byte. false: the caller has gone.
bool hold(const Creation& c) {
  tell_holder(c, "created");
  char byte = 0;
  ssize_t got = 0;
  do {
    got = ::read(c.options.hold_fd, &byte, 1);
  } while (got < 0 && errno == EINTR);
  ::close(c.options.hold_fd);
  return got == 1;
}

int wait_in_foreground(Creation& c) {
  if (c.master) {
    relay_terminal(c.master.get(), c.first.pidfd.get());
  } else {
    wait_passing_signals(c.first.pidfd.get());
  }
  return c.first.wait();
}

}  // namespace

void create_container(const CreateOptions& options) {
  Creation c{.options = options, .mode = Mode::create};
  create(c);
  c.link->hold();
  c.undo.commit();
  c.first.detach();
}

int run_container(const CreateOptions& options) {
  Creation c{.options = options, .mode = Mode::run};
  std::optional<sys::SignalMask> mask;
  if (c.foreground()) mask.emplace(forwarded_signals());
  create(c);
  if (options.hold_fd >= 0 && !hold(c)) throw_error("whoever started this container has gone");
  step("start", [&] {
    c.link->go();
    spec::RuntimeState state = c.plan.state;
    state.pid = c.first.pid;
    const auto& seccomp = c.plan.bundle.config.linux_.seccomp;
    serve_until_exec(*c.link, state, seccomp ? &*seccomp : nullptr);
    sys::trace_end("exec");
  });
  c.undo.commit();
  const spec::Hooks& hooks = c.plan.bundle.config.hooks;
  if (!hooks.poststart.empty()) run_poststart(*c.container, *c.container->read(), hooks);
  c.container->unlock();
  if (options.detach) {
    c.first.detach();
    return 0;
  }
  const int code = wait_in_foreground(c);
  if (!options.keep && c.container->lock(10'000)) destroy_container(*c.container);
  return code;
}

void run_poststart(const Container& container, const Record& record, const spec::Hooks& hooks) {
  // A program that has ended already was running all the same when it was started.
  spec::RuntimeState state = container.state(record);
  state.status = "running";
  state.pid = record.pid;
  run_hooks_warning("poststart", hooks.poststart, spec::print_state(state), record.bundle);
}

void destroy_container(Container& container) {
  const std::optional<Record> record = container.read();
  if (record && !record->cgroup.empty()) {
    try {
      // Without a pid namespace of their own, others outlive the first process.
      if (cgroup::populated(record->cgroup)) cgroup::kill_all(record->cgroup);
      if (record->cgroup_made && !cgroup::remove_tree(record->cgroup))
        log::warn("cgroup {} is still in use", record->cgroup);
      if (!record->cgroup_scope.empty()) sys::Systemd::connect().stop_scope(record->cgroup_scope);
    } catch (const Error& error) {
      log::warn("remove the cgroup: {}", error.message());
    }
  }
  if (record && record->mounted_rootfs) detach_root(record->rootfs);
  if (record && record->poststop) {
    try {
      spec::RuntimeState state = container.state(record);
      state.status = "stopped";
      run_hooks_warning("poststop", container.config().hooks.poststop, spec::print_state(state), record->bundle);
    } catch (const Error& error) {
      log::warn("poststop hooks: {}", error.message());
    }
  }
  container.remove();
}

}  // namespace kelp::runtime
