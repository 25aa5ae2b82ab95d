#include "runtime/create.h"

#include <array>

#include "base/error.h"
#include "base/text.h"
#include "runtime/commands/commands.h"
#include "runtime/commands/create_options.h"

namespace kelp::runtime {

CreateOptions create_options(const Call& call) {
  CreateOptions options;
  options.root = call.global.root;
  options.id = call.words[0];
  if (call.options.has("bundle")) options.bundle = call.options.value("bundle");
  if (call.options.has("config")) options.config = call.options.value("config");
  options.console_socket = call.options.value("console-socket");
  options.pidfd_socket = call.options.value("pidfd-socket");
  options.pid_file = call.options.value("pid-file");
  options.preserve_fds = call.options.number("preserve-fds", 0, 0, 1000);
  options.no_pivot = call.options.flag("no-pivot");
  options.no_new_keyring = call.options.flag("no-new-keyring");
  options.die_with_parent = call.options.flag("die-with-parent");
  options.systemd_cgroup = call.global.systemd_cgroup;
  options.no_cgroup = call.global.no_cgroup;
  options.rootless = call.global.rootless;
  return options;
}

namespace {

constexpr std::array kOptions = {KELP_OCI_CREATE_OPTIONS};

int create(const Call& call) {
  create_container(create_options(call));
  return 0;
}

}  // namespace

const Command kCreate = {"create", "ID", "create a container that waits for start", kOptions, create, 1, 1};

}  // namespace kelp::runtime
