#include "runtime/exec.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "cgroup/cgroup.h"
#include "runtime/container.h"
#include "runtime/first_process.h"
#include "runtime/link.h"
#include "runtime/node_settings.h"
#include "runtime/payload.h"
#include "runtime/privileges.h"
#include "runtime/seccomp.h"
#include "runtime/start_gate.h"
#include "runtime/terminal.h"
#include "spec/validate.h"
#include "sys/clone.h"
#include "sys/lock.h"
#include "sys/namespaces.h"
#include "sys/signals.h"

namespace kelp::runtime {
namespace {

/// All that the new process needs, computed by the parent.
struct ExecPlan {
  spec::Process process;
  PrivilegePlan privileges;
  std::optional<spec::Seccomp> profile;
  SeccompProgram seccomp;  ///< of `profile`
  Fd target;               ///< pidfd of the container's first process
  int flags = 0;           ///< namespaces of it that are not ours already
  Fd console_socket;
  Fd proc;  ///< the runtime's own /proc, valid when there are security labels to set
  std::optional<spec::MemoryPolicy> memory_policy;
  Fd root;  ///< valid where the container shares our mount namespace: its root is a chroot there
  int preserve_fds = 0;
};

void set_user(spec::Process& process, const std::string& user) {
  const std::vector<std::string> parts = split(user, ':', 2);
  const auto uid = to_int(parts[0], 0, UINT32_MAX - 1);
  // As in runc, what is not named stays as the container has it: the group, umask and additional groups.
  const auto gid =
      parts.size() > 1 ? to_int(parts[1], 0, UINT32_MAX - 1) : std::optional<std::int64_t>(process.user.gid);
  if (!uid || !gid) throw_usage("--user {}: numbers UID[:GID] are expected", quoted(user));
  process.user.uid = static_cast<std::uint32_t>(*uid);
  process.user.gid = static_cast<std::uint32_t>(*gid);
}

void add_caps(spec::Process& process, const spec::Strings& caps) {
  if (caps.empty()) return;
  if (!process.capabilities) process.capabilities.emplace();
  spec::Capabilities& sets = *process.capabilities;
  for (const std::string& cap : caps)
    for (spec::Strings* set : {&sets.bounding, &sets.effective, &sets.permitted}) set->push_back(cap);
}

/// --process FILE, or the container's process with the options' changes.
spec::Process wanted_process(const ExecOptions& options, const spec::RuntimeConfig& config) {
  spec::Process process;
  if (!options.process_file.empty()) {
    const auto text = sys::read_small_file(options.process_file, spec::kMaxConfigBytes);
    if (!text) throw_error("{}: {}", options.process_file, errno_text(ENOENT));
    try {
      process = spec::parse_process(*text);
    } catch (Error& error) {
      error.add_context(options.process_file);
      throw;
    }
  } else {
    if (options.args.empty()) throw_usage("exec: a command is missing");
    if (config.process) process = *config.process;
    process.args = options.args;
    process.terminal = false;
  }
  process.env.insert(process.env.end(), options.env.begin(), options.env.end());
  if (!options.cwd.empty()) process.cwd = options.cwd;
  if (!options.user.empty()) set_user(process, options.user);
  auto& gids = process.user.additional_gids;
  gids.insert(gids.end(), options.additional_gids.begin(), options.additional_gids.end());
  add_caps(process, options.caps);
  if (options.no_new_privs) process.no_new_privileges = true;
  if (!options.apparmor_profile.empty()) process.apparmor_profile = options.apparmor_profile;
  if (!options.process_label.empty()) process.selinux_label = options.process_label;
  if (options.tty) process.terminal = *options.tty;
  spec::validate_process(process, "process");
  return process;
}

/// Namespaces of a process that differ from ours. Joining the user namespace that one is in is refused (EINVAL), and
/// whether the container has one of its own depends on where we run.
int differing_namespaces(pid_t pid) {
  int flags = 0;
  for (const sys::NamespaceKind& kind : sys::namespace_kinds()) {
    struct stat own {
    }, its{};
    if (::stat(fmt::format("/proc/self/ns/{}", kind.proc_name).c_str(), &own) < 0) continue;  // not in this kernel
    if (::stat(fmt::format("/proc/{}/ns/{}", pid, kind.proc_name).c_str(), &its) < 0)
      throw_errno("look at the {} namespace of the container", kind.spec_name);
    if (own.st_ino != its.st_ino || own.st_dev != its.st_dev) flags |= kind.flag;
  }
  return flags;
}

/// THE CHILD'S STORY: already in the namespaces and in the cgroup of the container.
void tell_the_story(ExecPlan& plan, ChildLink& link) {
  const spec::Process& process = plan.process;
  reset_signals();
  ::prctl(PR_SET_NAME, "kelp:exec");
  if (::setsid() < 0 && errno != EPERM) throw_errno("become a session leader");
  if (process.scheduler && ends_at_fork(*process.scheduler)) set_scheduler(*process.scheduler);
  Fd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root) throw_errno("open / of the container");
  new_session_keyring("kelp-exec");
  ExecLabels labels;
  labels.open(process, plan.proc.get());
  if (process.terminal) {
    step("terminal", [&] {
      Terminal terminal = open_terminal(root.get(), process.console_size);
      take_terminal(terminal.slave.get(), plan.privileges.uid);
      send_terminal(std::move(plan.console_socket), std::move(terminal.master));
    });
  }
  root.reset();
  close_all_but(3 + plan.preserve_fds, {link.fd(), labels.apparmor_fd(), labels.selinux_fd()});
  spec::Strings env = process.env;
  complete_environment(env, plan.privileges.uid);
  step("working directory", [&] { enter_working_dir(process.cwd); });
  const std::string program = find_executable(process.args.at(0), env);
  link.ask(Msg::ready);
  step("security labels", [&] { labels.apply(process); });
  own_stdio_pipes(plan.privileges.uid);
  link.tell(Msg::executing);
  step("resource limits", [&] { set_rlimits(process.rlimits); });
  step("privileges", [&] {
    drop_privileges(plan.privileges, [&] {
      if (plan.seccomp.empty()) return;
      const Fd listener = install_seccomp(plan.seccomp);
      if (listener) link.ask(Msg::listener, {}, listener.get());
    });
  });
  exec_payload(program, process.args, env);
}

int run_exec(ExecPlan& plan, ChildLink& link) noexcept {
  try {
    tell_the_story(plan, link);
    return 0;
  } catch (const Error& error) {
    link.tell_failed(error);
    return error.exit_code();
  } catch (const std::exception& error) {
    link.tell_failed(Error(error.what()));
    return kExitFailure;
  }
}

/// The joining process: it is in the container's cgroup from birth, since after joining a cgroup namespace nothing
/// outside of it can be entered. A pid namespace holds for children only, so it clones the real one beside itself.
int join_and_clone(ExecPlan& plan, sys::Link child_end, bool ask_for_group) noexcept {
  ChildLink link(std::move(child_end));
  log::divert([](void* to, log::Level level,
                 std::string_view text) { static_cast<ChildLink*>(to)->tell_log(static_cast<int>(level), text); },
              &link);
  try {
    if (ask_for_group) link.ask(Msg::enter_group);
    if (plan.process.oom_score_adj) set_oom_score_adj(*plan.process.oom_score_adj, true);
    // Here, where the host's privileges still count; what a fork takes away again is for the real one.
    if (plan.process.scheduler && !ends_at_fork(*plan.process.scheduler)) set_scheduler(*plan.process.scheduler);
    if (plan.process.io_priority) set_io_priority(*plan.process.io_priority);
    if (plan.memory_policy) set_memory_policy(*plan.memory_policy);
    if (!plan.process.cpu_affinity.empty()) set_cpu_affinity(plan.process.cpu_affinity[1]);
    // Until the payload runs we hold descriptors of the host: nobody in there may look into us.
    if (::prctl(PR_SET_DUMPABLE, 0) < 0) throw_errno("become non-dumpable");
    step("join the container's namespaces", [&] {
      if (plan.flags != 0) sys::join(plan.target.get(), plan.flags);
      if (plan.root && (::fchdir(plan.root.get()) < 0 || ::chroot(".") < 0)) throw_errno("enter its root");
      if ((plan.flags & CLONE_NEWUSER) == 0) return;
      if ((::setresgid(0, 0, 0) < 0 || ::setresuid(0, 0, 0) < 0) && errno != EINVAL)
        throw_errno("become root of the user namespace");
      if (::prctl(PR_SET_DUMPABLE, 0) < 0) throw_errno("stay non-dumpable");
    });
    tell_staged(link, 0, [&] { return run_exec(plan, link); });
    return 0;
  } catch (const Error& error) {
    link.tell_failed(error);
    return error.exit_code();
  }
}

/// The container's group, as exec enters it.
struct ExecGroup {
  std::string path;   ///< "" = none
  std::string scope;  ///< systemd's unit around it, "" = none
  /// Where the first process sits, when it made groups below its own, as systemd does: the container's own group then
  /// takes no processes. "" = not below it, or not to be used.
  std::string inner;
};

/// below  --cgroup: a group below the container's
ExecGroup container_group(const Record& record, const std::string& below) {
  if (("/" + below + "/").find("/../") != std::string::npos)
    throw_usage("--cgroup {}: it leads out of the container's group", quoted(below));
  if (record.cgroup.empty()) {
    if (!below.empty()) throw_error("--cgroup {}: the container has no cgroup of its own", below);
    return {};
  }
  if (!below.empty()) return {record.cgroup + "/" + below, record.cgroup_scope, ""};
  const std::string inner = cgroup::group_of(record.pid);
  return {record.cgroup, record.cgroup_scope, starts_with(inner, record.cgroup + "/") ? inner : ""};
}

/// The master's way: to the caller's socket, or to us for an exec in the foreground.
sys::Link open_console(const ExecOptions& options, ExecPlan& plan) {
  if (!options.console_socket.empty()) {
    if (!plan.process.terminal) throw_usage("--console-socket is for processes with a terminal (--tty)");
    plan.console_socket = connect_socket("console socket", options.console_socket);
    return {};
  }
  if (!plan.process.terminal) return {};
  if (options.detach) throw_usage("a detached process with a terminal needs --console-socket");
  auto [ours, theirs] = sys::Link::pair();
  plan.console_socket = theirs.release();
  return std::move(ours);
}

ExecPlan make_plan(const ExecOptions& options, const Container& container, const Record& record) {
  ExecPlan plan;
  plan.target = container.pidfd(record);
  if (!plan.target) throw_error("cannot exec in a stopped container");
  spec::RuntimeConfig config = container.config();
  plan.process = wanted_process(options, config);
  plan.privileges = plan_privileges(plan.process);
  plan.proc = ExecLabels::open_proc(plan.process);
  plan.memory_policy = std::move(config.linux_.memory_policy);
  plan.profile = std::move(config.linux_.seccomp);
  if (plan.profile) plan.seccomp = cached_seccomp(*plan.profile, seccomp_cache_dir());
  plan.flags = differing_namespaces(record.pid);
  plan.preserve_fds = options.preserve_fds;
  if ((plan.flags & CLONE_NEWNS) == 0) {
    plan.root = Fd(::open(fmt::format("/proc/{}/root", record.pid).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!plan.root) throw_errno("open the root of the container");
  }
  // What was looked up by number is the container's only if it has not died meanwhile.
  if (!sys::pidfd_alive(plan.target.get())) throw_error("cannot exec in a stopped container");
  return plan;
}

/// The helper is born in the group. Where the kernel does not let us put it there, it waits to be moved.
sys::Child clone_helper(ExecPlan& plan, ParentLink& link, sys::Link child_end, sys::Link& console,
                        const ExecGroup& group, bool& waits) {
  const auto clone_into = [&](const Fd& into, bool ask_for_group = false) {
    return sys::clone_child(0,
                            [&] {
                              link.close();
                              console.close();
                              return join_and_clone(plan, std::move(child_end), ask_for_group);
                            },
                            {.cgroup_fd = into ? into.get() : -1});
  };
  if (group.path.empty()) return clone_into(Fd());
  try {
    return clone_into(cgroup::open_group(group.path));
  } catch (const SysError& error) {
    if (error.code() == EBUSY && !group.inner.empty()) return clone_into(cgroup::open_group(group.inner));
    if (error.code() != EACCES) throw;
  }
  waits = true;
  return clone_into(Fd(), true);
}

sys::Child start_process(ExecPlan& plan, ParentLink& link, sys::Link child_end, sys::Link& console,
                         const ExecGroup& group) {
  // The clone is in the container's group from birth: what comes before that move is set on ourselves.
  if (!plan.process.cpu_affinity.empty()) set_cpu_affinity(plan.process.cpu_affinity[0]);
  bool waits = false;
  sys::Child helper = clone_helper(plan, link, std::move(child_end), console, group, waits);
  plan.console_socket.reset();
  if (waits) {
    const ParentLink::Event event = link.require("enter the container's group");
    if (event.msg != Msg::enter_group) throw_error("unexpected answer of the joining process");
    cgroup::move_by_systemd(group.scope, group.inner.empty() ? group.path : group.inner, helper.pid);
    link.go();
  }
  ParentLink::Event event = link.require("join the container's namespaces");
  if (event.msg != Msg::staged || event.fds.empty()) throw_error("unexpected answer of the joining process");
  helper.wait();
  return {static_cast<pid_t>(to_int(event.text).value_or(-1)), std::move(event.fds[0])};
}

}  // namespace

int exec_in_container(const ExecOptions& options) {
  const Container container = Container::open(options.root, options.id);
  const Record record = container.require();
  if (!options.ignore_paused && container.status(record) == Status::paused)
    throw_error("cannot exec in a paused container");
  ExecPlan plan = make_plan(options, container, record);
  sys::Link console = open_console(options, plan);
  const ExecGroup group = container_group(record, options.cgroup);
  std::optional<sys::SignalMask> mask;
  if (!options.detach) mask.emplace(forwarded_signals());

  auto [ours, theirs] = sys::Link::pair();
  ParentLink link(std::move(ours));
  sys::Child child = start_process(plan, link, std::move(theirs), console, group);
  (void)link.require("start the process");  // ready
  if (!options.pid_file.empty()) sys::replace_file(options.pid_file, std::to_string(child.pid), 0644);
  if (!options.pidfd_socket.empty())
    sys::send_fd(connect_socket("pidfd socket", options.pidfd_socket).get(), "pidfd", child.pidfd.get());
  Fd master;
  if (console.valid()) master = receive_terminal(console, plan.process.console_size);
  link.go();
  serve_until_exec(link, container.state(record), plan.profile ? &*plan.profile : nullptr);
  if (options.started_fd >= 0) {  // whoever reads it may have gone; we go on
    const Fd started(options.started_fd);
    ::signal(SIGPIPE, SIG_IGN);
    (void)!::write(started.get(), "s", 1);
  }
  if (options.detach) {
    child.detach();
    return 0;
  }
  if (master) {
    relay_terminal(master.get(), child.pidfd.get());
  } else {
    wait_passing_signals(child.pidfd.get());
  }
  return child.wait();
}

}  // namespace kelp::runtime
