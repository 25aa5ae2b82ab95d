#include "engine/runtime_client.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/program_path.h"
#include "base/text.h"
#include "cgroup/cgroup.h"
#include "engine/context.h"
#include "engine/session.h"
#include "engine/userns.h"
#include "store/containers.h"
#include "sys/clone.h"
#include "sys/namespaces.h"
#include "sys/procfs.h"
#include "sys/xattr_tree.h"

namespace kelp::engine {
namespace {

std::string name_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

std::string find_runtime(const std::string& wanted) {
  if (wanted.empty() || wanted == "kelp-oci") return own_program("kelp-oci");
  if (wanted.find('/') != std::string::npos) {
    if (::access(wanted.c_str(), X_OK) < 0) throw_errno("runtime {}", wanted);
    return wanted;
  }
  std::string found = find_in_path(wanted);
  if (found.empty()) throw_error("runtime {}: not found in PATH", quoted(wanted));
  return found;
}

constexpr int kDeathMilliseconds = 5000;

/// Its ids may be subordinate ones, so only a process in its user namespace may kill it.
void kill_orphan(const store::RunState& state) {
  const auto userns = userns_of_process(state.pid, state.pid_start);
  if (!userns) return;
  const Fd init = sys::pidfd_open(state.pid);
  sys::Child child = sys::clone_child(0, [&]() -> int {
    sys::join(userns->get(), CLONE_NEWUSER);
    sys::pidfd_send_signal(init.get(), SIGKILL);
    return 0;
  });
  child.wait();
  pollfd gone{init.get(), POLLIN, 0};
  ::poll(&gone, 1, kDeathMilliseconds);
}

}  // namespace

const std::string& runtime_program(const Context& context) {
  static std::string wanted, found;
  if (found.empty() || wanted != context.global.runtime) {
    found = find_runtime(context.global.runtime);
    wanted = context.global.runtime;
  }
  return found;
}

bool is_own_runtime(const Context& context) { return name_of(runtime_program(context)) == "kelp-oci"; }

std::vector<std::string> runtime_argv(const Context& context, bool cgroup) {
  std::vector<std::string> argv{runtime_program(context)};
  for (const auto& flag : context.global.runtime_flags) argv.push_back("--" + flag);
  argv.insert(argv.end(), {"--root", context.layout.runtime_root()});
  const std::string name = name_of(argv.front());
  if (name == "crun") argv.push_back(cgroup ? "--cgroup-manager=cgroupfs" : "--cgroup-manager=disabled");
  if (name == "runc") argv.insert(argv.end(), {"--rootless", "true"});
  return argv;
}

std::vector<std::string> runtime_create_args(const Context& context) {
  // A session keyring per container ends at the 201st: 200 keys per user is the kernel's default.
  if (!is_own_runtime(context)) return {"--no-new-keyring"};
  return {};
}

namespace {

void delete_from_runtime(Context& context, const std::string& id, bool with_cgroup) {
  sys::SpawnRequest request;
  request.argv = runtime_argv(context, with_cgroup);
  request.path = request.argv.front();
  request.argv.insert(request.argv.end(), {"delete", "--force", id});
  request.fds = {{0, -1}, {1, -1}, {2, -1}};
  try {
    spawn_in_userns(context, request).wait();
  } catch (const Error& error) {
    log::debug("delete container {} from the runtime: {}", id, error.message());
  }
}

}  // namespace

void clear_remains(Context& context, const std::string& id) {
  const std::string run_dir = context.layout.run_of(id), runtime_dir = context.layout.runtime_root() + "/" + id;
  const bool known = ::access(runtime_dir.c_str(), F_OK) == 0;
  if (!known && ::access(run_dir.c_str(), F_OK) < 0) return;
  try {
    const auto state = store::read_run_state(context.layout, id);
    if (state && sys::start_time(state->pid) == state->pid_start) kill_orphan(*state);
    if (known) delete_from_runtime(context, id, state && !state->cgroup.empty());
    // Also where that was cut short (its own child killed, no user namespace to be had now): this may be the last look
    // at what the container has left, and with the monitor it has died.
    if (is_own_runtime(context)) sys::remove_tree(runtime_dir);
    if (state && ends_with(state->cgroup, "/container")) {
      const std::string group = cgroup::v2_mount() + state->cgroup.substr(0, state->cgroup.rfind('/'));
      if (!cgroup::remove_tree(group)) log::debug("the group {} is still in use", group);
    }
    sys::remove_tree(run_dir);
  } catch (const Error& error) {
    log::warn("clean up after a killed monitor: {}", error.message());
  }
}

}  // namespace kelp::engine
