// Sessions: a process in S with a mount namespace of its own. The session of a container becomes its monitor.
#include "engine/session.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "base/program_path.h"
#include "engine/context.h"
#include "engine/prepare.h"
#include "engine/rootfs.h"
#include "engine/runtime_client.h"
#include "engine/stopped_mounts.h"
#include "engine/user_namespace.h"
#include "monitor/protocol.h"
#include "monitor/root_answer.h"
#include "store/containers.h"
#include "sys/link.h"
#include "sys/lock.h"
#include "sys/loopback.h"
#include "sys/mount_api.h"
#include "sys/namespaces.h"

namespace kelp::engine {
namespace {

// ---- results of forked bodies, see monitor/root_answer.h

struct Pipe {
  Fd read_end, write_end;
  Pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) < 0) throw_errno("make a pipe");
    read_end = Fd(ends[0]);
    write_end = Fd(ends[1]);
  }
};

int answer(int fd, const std::function<std::string()>& body) noexcept {
  try {
    std::string text;
    try {
      text = monitor::good_answer(body());
    } catch (const Error& error) {
      text = monitor::bad_answer(error);
    }
    sys::write_all(fd, text, "the answer");
    return 0;
  } catch (const std::exception& error) {
    log::error("{}", error.what());
    return kExitFailure;
  }
}

std::string result_of(sys::Child child, Pipe& pipe) {
  pipe.write_end.reset();
  const std::string text = sys::read_rest(pipe.read_end.get(), "the answer", 256u << 20);
  const int code = child.wait();
  if (text.empty()) throw_error("a child process ended with status {}", code);
  return monitor::read_answer(text);
}

// ---- sessions

/// The runtime's binary cannot be written through /proc/PID/exe of a container when it is seen over a read-only mount.
void seal_program(const std::string& path) {
  const sys::MountFd mount = sys::open_tree_clone(AT_FDCWD, path.c_str(), false);
  sys::set_attrs(mount.get(), "", MOUNT_ATTR_RDONLY, 0, false);
  const Fd target(::open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!target) throw_errno("open {}", path);
  sys::move_mount(mount, target.get());
}

RootfsPlan rootfs_of(const Context& context, std::string directory, store::Strings lowers) {
  RootfsPlan plan;
  plan.directory = std::move(directory);
  plan.lowers = std::move(lowers);
  const std::string mount_points = mount_points_layer(context.layout.layers());
  if (!mount_points.empty()) plan.lowers.push_back(mount_points);
  apply_storage_choice(plan, context.global.storage_driver, context.global.storage_options);
  return plan;
}

Fd open_root(const std::string& path) {
  Fd root(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root) throw_errno("open the root file system {}", path);
  return root;
}

void become_monitor(const Context& context, const SessionRequest& request, int root, int network) {
  sys::SpawnRequest exec;
  exec.path = context.global.monitor.empty() ? own_program("kelp-monitor") : context.global.monitor;
  const int first = 3 + static_cast<int>(request.preserve_fds);
  exec.argv = {"kelp-monitor"};
  for (int number = first; number < first + 4; ++number) exec.argv.push_back(std::to_string(number));
  exec.new_session = true;
  exec.working_dir = "/";  // the caller's directory must stay unmountable
  exec.fds = {{first, request.link}, {first + 1, request.plan}, {first + 2, request.lock}, {first + 3, root}};
  if (network >= 0) {
    exec.argv.push_back(std::to_string(first + 4));
    exec.fds.emplace_back(first + 4, network);
  }
  for (int fd = 3; fd < first; ++fd) {  // what closes on exec is ours, and only in the place of one that is wanted
    const int flags = ::fcntl(fd, F_GETFD);
    exec.fds.emplace_back(fd, flags >= 0 && (flags & FD_CLOEXEC) == 0 ? fd : -1);
  }
  if (!request.passthrough)
    for (const int fd : {0, 1, 2}) exec.fds.emplace_back(fd, -1);
  sys::exec_program(exec);
}

void tell_failure(int link, const Error& error) noexcept {
  std::string text = error.message();
  text.resize(std::min(text.size(), monitor::kMaxPayload / 2));
  text.append(1, '\0').append(error.hint());
  monitor::send_frame(link, {.type = monitor::Msg::failed, .value = static_cast<std::uint32_t>(error.exit_code())},
                      std::string_view(text).substr(0, monitor::kMaxPayload), {}, true);
}

/// The container's group and its bundle are being made meanwhile; nothing of the container may start without them.
bool gate_opens(const SessionRequest& request) {
  char byte = 0;
  ssize_t count = 0;
  do {
    count = ::read(request.gate->get(), &byte, 1);
  } while (count < 0 && errno == EINTR);
  return count == 1;
}

void make_root(Context& context, const StartPlan& start) {
  std::string root = start.rootfs;
  if (root.empty()) {
    RootfsPlan plan = rootfs_of(context, start.bundle, start.lowers);
    plan.volatile_overlay = start.volatile_overlay;
    step("mount the root filesystem", [&] { mount_rootfs(plan); });
    root = plan.directory + "/merged";
  }
  step("mount the overlays of volumes", [&] { mount_overlays(start.overlays); });
  step("fill volumes", [&] { fill_volumes(context, start, open_root(root).get()); });
  step("bind subpaths", [&] { bind_subpaths(start.subpaths); });
}

/// The socket closes without a word when it cannot be made: the runtime then tries itself, and says why.
void make_network(sys::Link& to) {
  try {
    sys::unshare(CLONE_NEWNET);
    sys::bring_loopback_up();
    to.send("n", {sys::open_ns(0, "net").get()});
  } catch (const Error& error) {
    log::debug("make a network namespace ahead: {}", error.message());
  }
}

/// A child of the session, beside the monitor's start.
int make_surroundings(Context& context, const SessionRequest& request, Pipe& root, sys::Link& network) {
  const int code = answer(root.write_end.get(), [&] {
    make_root(context, *request.start);
    return std::string();
  });
  root.write_end.reset();
  if (code == 0 && network.valid()) make_network(network);
  return code;
}

int run_session(Context& context, const SessionRequest& request) {
  ::close(request.gate_far->get());  // our copy: the pipe must end with kelp
  try {
    // Below this line we are uid 0 of S, alone in a mount namespace whose mounts do not reach the host.
    step("make the mount namespace a slave", [] { sys::make_mounts_slave(); });
    step("seal the runtime", [&] { seal_program(runtime_program(context)); });
    // fuse-overlayfs is to become the monitor's when the child that starts it has ended.
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
    Pipe root;
    std::pair<sys::Link, sys::Link> network;
    if (request.new_network) network = sys::Link::pair();
    const pid_t parent = ::getpid();
    const sys::Child maker = sys::clone_child(0, [&]() -> int {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() != parent) return kExitFailure;
      network.first.close();
      return make_surroundings(context, request, root, network.second);
    });
    root.write_end.reset();
    network.second.close();
    if (gate_opens(request)) become_monitor(context, request, root.read_end.get(), network.first.fd());
  } catch (const Error& error) {
    tell_failure(request.link, error);
  }
  return kExitFailure;
}

/// S as the joined containers have it; nullopt: the usual one.
std::optional<Fd> userns_of_joined(Context& context, const StartPlan& start) {
  std::optional<Fd> found;
  for (const auto& id : start.joins) {
    const auto state = store::read_run_state(context.layout, id);
    if (!state) continue;
    auto ns = userns_of_process(state->monitor_pid, state->monitor_start);
    if (!ns) throw_error("container {} has ended meanwhile", id);
    struct stat first {
    }, other{};
    if (found && (::fstat(found->get(), &first) < 0 || ::fstat(ns->get(), &other) < 0 || first.st_ino != other.st_ino))
      throw Error("the containers to be joined are in two user namespaces")
          .with_hint("the subordinate ids were changed while one of them ran: restart both");
    found = std::move(ns);
  }
  return found;
}

// ---- looking into containers

/// false: the container has ended meanwhile, and `body` did not run.
bool in_running(const store::RunState& state, const std::function<void(int)>& body) {
  Fd init;
  try {
    init = sys::pidfd_open(state.pid);
  } catch (const SysError& error) {
    if (error.code() == ESRCH) return false;
    throw;
  }
  Pipe pipe;
  sys::Child child = sys::clone_child(0, [&]() -> int {
    return answer(pipe.write_end.get(), [&] {
      ::prctl(PR_SET_DUMPABLE, 0);  // with a shared pid namespace the container would see us, with all our rights
      try {
        sys::join(init.get(), CLONE_NEWUSER | CLONE_NEWNS);
      } catch (const SysError& error) {
        if (error.code() == ESRCH) return std::string("ended");
        throw;
      }
      body(open_root("/").get());
      return std::string();
    });
  });
  return result_of(std::move(child), pipe) != "ended";
}

/// Runs `body` in a child user namespace of S with the container's own map; we are uid 0 of S and may write any.
void in_container_ids(const ContainerIds& ids, const std::function<void()>& body) {
  if (ids.uids.empty()) return body();
  Pipe result, go;
  sys::Child child = sys::clone_child(CLONE_NEWUSER, [&]() -> int {
    go.write_end.reset();
    char byte = 0;
    if (::read(go.read_end.get(), &byte, 1) != 1) return kExitFailure;
    return answer(result.write_end.get(), [&] {
      body();
      return std::string();
    });
  });
  sys::write_id_maps(child.pid, {ids.uids, ids.gids, false});
  if (::write(go.write_end.get(), "g", 1) != 1) throw_errno("start a child");
  result_of(std::move(child), result);
}

void in_stopped(Context& context, const store::ContainerRecord& record, const std::function<void(int)>& body,
                bool volumes) {
  const ContainerIds ids = resolve_ids(context, record.config);
  RootfsPlan plan;
  if (record.config.rootfs.empty()) plan = stopped_rootfs(context, record);
  Pipe pipe;
  sys::Child child = clone_in_userns(context, {.flags = CLONE_NEWNS}, [&]() -> int {
    return answer(pipe.write_end.get(), [&] {
      sys::make_mounts_slave();
      std::string root = record.config.rootfs;
      if (root.empty()) {
        mount_rootfs(plan);
        root = plan.directory + "/merged";
      }
      if (volumes) {
        std::uint32_t uid = 0, gid = 0;  // the container's root, as ids of S
        sys::map_out(ids.uids, 0, uid);
        sys::map_out(ids.gids, 0, gid);
        mount_volumes_of_stopped(context, record, open_root(root).get(), uid, gid);
      }
      in_container_ids(ids, [&] { body(open_root(root).get()); });
      if (record.config.rootfs.empty()) ::umount2(root.c_str(), MNT_DETACH);
      return std::string();
    });
  });
  result_of(std::move(child), pipe);
}

}  // namespace

RootfsPlan stopped_rootfs(Context& context, const store::ContainerRecord& record) {
  return rootfs_of(context, context.layout.container(record.id), root_directories(context, record, false));
}

sys::Child spawn_in_userns(Context& context, const sys::SpawnRequest& request, bool own_mounts) {
  Pipe pipe;
  UsernsClone options;
  options.cgroup_fd = request.cgroup_fd;
  if (own_mounts) options.flags = CLONE_NEWNS;
  sys::Child child = clone_in_userns(context, options, [&]() -> int {
    int failed = 0;
    // Out of the way of the descriptors that the program gets.
    const Fd told(::fcntl(pipe.write_end.get(), F_DUPFD_CLOEXEC, 64));
    try {
      if (own_mounts) sys::make_mounts_slave();
      sys::exec_program(request);
    } catch (const SysError& error) {
      failed = error.code();
    }
    [[maybe_unused]] const auto written = ::write(told.get(), &failed, sizeof failed);
    return kExitFailure;
  });
  pipe.write_end.reset();
  int failed = 0;
  if (::read(pipe.read_end.get(), &failed, sizeof failed) == static_cast<ssize_t>(sizeof failed)) {
    child.wait();
    throw SysError(fmt::format("execute {}", request.path), failed);
  }
  return child;
}

std::string userns_map_key(Context& context) {
  const sys::IdMaps& maps = wanted_maps(context);  // root of an outer container maps a full range without helpers
  return sys::id_count(maps.uids) > 1 && sys::id_count(maps.gids) > 1 ? "full" : "single";
}

std::string ask_in_userns(Context& context, const std::function<std::string()>& body) {
  Pipe pipe;
  sys::Child child = clone_in_userns(context, {.flags = CLONE_NEWNS}, [&]() -> int {
    return answer(pipe.write_end.get(), [&] {
      sys::make_mounts_slave();
      return body();
    });
  });
  return result_of(std::move(child), pipe);
}

void in_userns(Context& context, const std::function<void()>& body) {
  ask_in_userns(context, [&] {
    body();
    return std::string();
  });
}

void in_container(Context& context, const store::ContainerRecord& record, const std::function<void(int)>& body,
                  bool volumes) {
  for (;;) {
    const auto status = store::status(context.layout, record);
    if (store::can_be_entered(status.status) && status.run) {
      if (in_running(*status.run, body)) return;
      ::usleep(2000);
      continue;
    }
    auto lock = sys::FileLock::try_exclusive(store::container_lock(context.layout, record.id));
    if (!lock) {  // it starts or ends right now
      ::usleep(2000);
      continue;
    }
    if (store::can_be_entered(store::status(context.layout, record).status)) continue;
    return in_stopped(context, record, body, volumes);
  }
}

void with_container_root(Context& context, const store::ContainerRecord& record, bool mounts,
                         const std::function<void(int)>& use) {
  auto [ours, theirs] = sys::Link::pair();
  const auto lend = [&theirs = theirs](int root) {
    theirs.send("root", {root});
    theirs.receive();  // until we are no longer needed
  };
  sys::Child child = sys::clone_child(0, [&, &ours = ours, &theirs = theirs]() -> int {
    ours.close();
    try {
      if (mounts)
        in_container(context, record, lend, true);
      else
        in_userns(context, [&] {
          const store::Strings lowers = root_directories(context, record, true);
          sys::OverlayPlan plan;
          plan.lowers = lowers;
          // A single directory needs no overlay, and overlayfs would refuse it.
          if (lowers.size() == 1) return lend(open_root(lowers.front()).get());
          const sys::MountFd mount = sys::overlay(plan);
          const Fd root(::openat(mount.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
          if (!root) throw_errno("open the files of container {}", record.name);
          lend(root.get());
        });
      return 0;
    } catch (const Error& error) {
      theirs.send(error.message() + std::string(1, '\0') + error.hint());
      return kExitFailure;
    }
  });
  theirs.close();
  const auto frame = ours.receive();
  if (!frame) throw_error("the files of container {} cannot be reached", record.name);
  if (frame->fds.empty()) {
    const auto end = frame->data.find('\0');
    throw Error(frame->data.substr(0, end)).with_hint(end == std::string::npos ? "" : frame->data.substr(end + 1));
  }
  use(frame->fds.front().get());
  ours.close();
  child.wait();
}

sys::Child start_session(Context& context, const SessionRequest& request) {
  const auto joined = userns_of_joined(context, *request.start);
  UsernsClone options;
  options.flags = CLONE_NEWNS;
  options.publish = true;
  if (joined)
    options.userns = &*joined;
  else if (request.upcoming != nullptr)
    options.userns = request.upcoming->join();
  return clone_in_userns(context, options, [&] { return run_session(context, request); });
}

}  // namespace kelp::engine
