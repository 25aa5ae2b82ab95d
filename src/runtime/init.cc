#include "runtime/init.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "runtime/devices.h"
#include "runtime/first_process.h"
#include "runtime/hooks.h"
#include "runtime/node_settings.h"
#include "runtime/payload.h"
#include "runtime/start_gate.h"
#include "runtime/terminal.h"
#include "sys/loopback.h"
#include "sys/namespaces.h"
#include "sys/safe_path.h"
#include "sys/trace.h"

namespace kelp::runtime {
namespace {

void leave_the_runtime() {
  reset_signals();
  ::prctl(PR_SET_NAME, "kelp:init");
  ::umask(0);  // modes of what is made below are meant as they are written
  if (::setsid() < 0 && errno != EPERM) throw_errno("become a session leader");
}

/// The pid by which the runtime's procfs knows us: ours, in the namespace where hooks look for it.
pid_t outer_pid() {
  char text[32] = {};
  if (::readlink("/proc/self", text, sizeof text - 1) <= 0) return 0;
  return static_cast<pid_t>(to_int(text).value_or(0));
}

/// What is written to the runtime's /proc, before that is out of sight.
ExecLabels settings_of_the_process(const InitPlan& plan) {
  const spec::Process& process = *plan.bundle.config.process;
  if (process.oom_score_adj) set_oom_score_adj(*process.oom_score_adj, plan.in_user_namespace);
  if (process.scheduler) set_scheduler(*process.scheduler);
  if (process.io_priority) set_io_priority(*process.io_priority);
  if (plan.bundle.config.linux_.memory_policy) set_memory_policy(*plan.bundle.config.linux_.memory_policy);
  ExecLabels labels;
  labels.open(process, plan.proc.get());
  return labels;
}

void settings_of_the_node(const InitPlan& plan, int root) {
  const spec::RuntimeConfig& config = plan.bundle.config;
  try {
    set_host_names(config.hostname, config.domainname);
  } catch (const SysError& error) {
    // Default profiles of container engines refuse sethostname to all but their privileged containers.
    const auto outer = config.annotations.find("io.kelp.outer-hostname");
    if (error.code() != EPERM || outer == config.annotations.end() || outer->second != "allowed") throw;
    log::warn("a filter outside refuses sethostname: the container has the outer one's host name");
  }
  if (!config.linux_.sysctl.empty()) {
    bool own_proc = false;
    for (const MountOp& op : plan.mounts.ops) own_proc = own_proc || (op.fstype == "proc" && op.destination == "/proc");
    // The one in the container is writable even where the runtime's is not (inside another container).
    const Fd sys_dir = own_proc ? sys::open_in_root(root, "/proc/sys", O_RDONLY | O_DIRECTORY) : Fd();
    const auto wishes = config.annotations.find("io.kelp.wished-sysctls");
    const auto names = split(wishes == config.annotations.end() ? "" : wishes->second, ' ');
    spec::StringMap demanded;
    for (const auto& [key, value] : config.linux_.sysctl) {
      if (std::find(names.begin(), names.end(), key) == names.end()) {
        demanded[key] = value;
        continue;
      }
      try {
        own_proc ? set_sysctls_at(sys_dir.get(), {{key, value}}) : set_sysctls({{key, value}});
      } catch (const SysError& error) {  // the /proc is the outer container's
        log::debug("{}", error.message());
      }
    }
    own_proc ? set_sysctls_at(sys_dir.get(), demanded) : set_sysctls(demanded);
  }
  if (config.linux_.personality) set_personality(*config.linux_.personality);
}

/// The runtime, which has rights over the host's network, moves them here; what the move has lost they get back from
/// us.
void take_net_devices(const InitPlan& plan, ChildLink& link) {
  link.ask(Msg::net_devices, {}, sys::open_ns(0, "net").get());
  bring_up_net_devices(plan.net_devices);
}

/// Steps that build the root filesystem. Host paths are still there; those of the container are reached through the
/// returned descriptor only.
Fd build_root(InitPlan& plan) {
  const spec::RuntimeConfig& config = plan.bundle.config;
  if (plan.namespaces.own_mounts) sys::allow_mounts_by_mount2();
  Fd root = step("root filesystem", [&] {
    return plan.namespaces.own_mounts ? attach_root(plan.mounts, plan.sources, plan.bundle.rootfs)
                                      : plan.sources.rootfs.release();
  });
  if (config.process) make_working_dir(root.get(), config.process->cwd);
  const auto shared = config.annotations.find("io.kelp.shared-proc");
  MountContext context{root.get(), plan.namespaces.new_cgroup_ns, config.linux_.mount_label,
                       shared != config.annotations.end() && shared->second == "allowed"};
  const auto readonly_later = step("mounts", [&] { return apply_mounts(context, plan.mounts, plan.sources); });
  step("devices", [&] { make_devices(root.get(), config.linux_.devices, plan.mounts.own_dev); });
  for (const sys::MountFd& mount : readonly_later) make_readonly(mount.get());
  return root;
}

sys::LateUnmount close_root(const InitPlan& plan, int root) {
  const spec::Linux& config = plan.bundle.config.linux_;
  step("masked paths", [&] { mask_paths(root, config.masked_paths); });
  step("read-only paths", [&] { make_paths_readonly(root, config.readonly_paths); });
  if (plan.bundle.config.root->readonly) step("read-only root", [&] { make_readonly(root); });
  sys::LateUnmount old_root = step("pivot into the root filesystem", [&] {
    return pivot_into(root, plan.no_pivot || !plan.namespaces.own_mounts, plan.mounts.initial_propagation == 0);
  });
  if (!plan.mounts.root_propagation.empty())
    step("propagation of the root filesystem", [&] { set_root_propagation(plan.mounts); });
  return old_root;
}

void load_filter(const InitPlan& plan, ChildLink& link) {
  if (plan.seccomp.empty()) return;
  const Fd listener = install_seccomp(plan.seccomp);
  if (listener) link.ask(Msg::listener, {}, listener.get());
}

/// THE CHILD'S STORY.
void tell_the_story(InitPlan& plan, ChildLink& link) {
  const spec::RuntimeConfig& config = plan.bundle.config;
  const spec::Process& process = *config.process;
  leave_the_runtime();
  if (maps_itself(plan.namespaces)) link.ask(Msg::map_ids);
  if (plan.namespaces.new_user || plan.namespaces.joined_user)
    step("become root of the user namespace", [&] { become_namespace_root(plan.namespaces.hidden); });
  // Below this line we are uid 0 of the container's user namespace, with all capabilities in it.
  plan.state.pid = config.hooks.empty() ? 0 : outer_pid();
  if (plan.new_keyring) step("session keyring", [&] { new_session_keyring(plan.state.id.c_str()); });
  // Only now: the root of a cgroup namespace is the group that its maker is in.
  if (plan.namespaces.new_cgroup_ns) step("cgroup namespace", [] { sys::unshare(CLONE_NEWCGROUP); });
  if (plan.namespaces.has_new(CLONE_NEWNET)) step("loopback interface", [] { sys::bring_loopback_up(); });
  if (!plan.net_devices.empty()) step("network devices", [&] { take_net_devices(plan, link); });
  const ExecLabels labels = settings_of_the_process(plan);

  Fd root = build_root(plan);
  if (!config.hooks.prestart.empty() || !config.hooks.create_runtime.empty()) link.ask(Msg::hooks);
  run_hooks("createContainer", config.hooks.create_container, spec::print_state(plan.state), plan.bundle.dir,
            &process.env);
  Terminal terminal;
  if (process.terminal) {
    step("terminal", [&] {
      terminal = open_terminal(root.get(), process.console_size);
      bind_console(root.get(), terminal.slave.get());
    });
  }
  step("hostname and sysctls", [&] { settings_of_the_node(plan, root.get()); });
  sys::LateUnmount old_root = close_root(plan, root.get());
  // Below this line no path leads to the host.
  if (process.terminal) {
    step("terminal", [&] {
      take_terminal(terminal.slave.get(), plan.privileges.uid);
      send_terminal(std::move(plan.console_socket), std::move(terminal.master));
      terminal.slave.reset();
    });
  }
  root.reset();
  close_all_but(3 + plan.preserve_fds,
                {link.fd(), plan.gate.get(), plan.watch.get(), labels.apparmor_fd(), labels.selinux_fd()});
  spec::Strings env = process.env;
  complete_environment(env, plan.privileges.uid);
  step("working directory", [&] { enter_working_dir(process.cwd); });
  const std::string program = find_executable(process.args.at(0), env);

  const auto let_go = [&] { step("let go of the old root", [&] { old_root.wait(); }); };
  // What follows is short in a run, but between create and start the host's mounts must not be held.
  if (plan.gate || !config.hooks.start_container.empty()) let_go();
  if (link.ask(Msg::ready) == Msg::hold) {
    log::divert(nullptr, nullptr);  // nobody hears us until `start` comes
    link.replace(wait_at_gate(std::move(plan.gate), plan.watch.get()));
  }
  plan.state.status = "created";
  run_hooks("startContainer", config.hooks.start_container, spec::print_state(plan.state), "", &env);
  step("security labels", [&] { labels.apply(process); });
  own_stdio_pipes(plan.privileges.uid);
  link.tell(Msg::executing);  // the filter need not allow us to speak after it is loaded
  step("resource limits", [&] { set_rlimits(process.rlimits); });
  let_go();
  const bool last_is_filter = plan.privileges.no_new_privs;
  step("privileges", [&] {
    drop_privileges(plan.privileges, [&] {
      if (plan.die_with_parent && last_is_filter) die_with_parent(plan.watch.get());
      load_filter(plan, link);
    });
  });
  if (plan.die_with_parent && !last_is_filter) die_with_parent(plan.watch.get());
  sys::trace_begin("exec");
  exec_payload(program, process.args, env);
}

}  // namespace

int run_init(InitPlan& plan, ChildLink link) noexcept {
  log::divert([](void* to, log::Level level,
                 std::string_view text) { static_cast<ChildLink*>(to)->tell_log(static_cast<int>(level), text); },
              &link);
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

}  // namespace kelp::runtime
