#include "runtime/checkpoint.h"

#include <array>

#include "base/error.h"
#include "base/text.h"
#include "runtime/commands/commands.h"
#include "runtime/commands/create_options.h"

namespace kelp::runtime {
namespace {

#define KELP_OCI_CRIU_OPTIONS                                                                      \
  OptionSpec{"image-path", 0, "DIR", "directory of the images (default: checkpoint)"},             \
      OptionSpec{"work-path", 0, "DIR", "directory of criu's logs (default: that of the images)"}, \
      OptionSpec{"tcp-established", 0, nullptr, "allow open TCP connections"},                     \
      OptionSpec{"ext-unix-sk", 0, nullptr, "allow unix sockets that lead outside"},               \
      OptionSpec{"shell-job", 0, nullptr, "allow terminals of the caller"},                        \
      OptionSpec{"file-locks", 0, nullptr, "handle file locks"},                                   \
      OptionSpec{"lazy-pages", 0, nullptr, "leave the memory behind, to be fetched on demand"},    \
      OptionSpec{"auto-dedup", 0, nullptr, "drop pages of the parent's images that are here"},     \
      OptionSpec{"empty-ns", 0, "KIND", "network: its settings are never kept"}, OptionSpec {      \
    "manage-cgroups-mode", 0, "MODE", "soft, full, strict or ignore (default: soft)"               \
  }

constexpr std::array kCheckpointOptions = {
    KELP_OCI_CRIU_OPTIONS,
    OptionSpec{"parent-path", 0, "DIR", "images of an earlier pre-dump"},
    OptionSpec{"leave-running", 0, nullptr, "let the container go on"},
    OptionSpec{"tcp-skip-in-flight", 0, nullptr, "forget TCP connections that are not accepted yet"},
    OptionSpec{"page-server", 0, "ADDRESS:PORT", "send the memory there"},
    OptionSpec{"status-fd", 0, "N", "criu says there that it serves pages"},
    OptionSpec{"pre-dump", 0, nullptr, "write the memory only, for a quicker checkpoint later"},
};
constexpr std::array kRestoreOptions = {
    KELP_OCI_CRIU_OPTIONS,
    OptionSpec{"lsm-profile", 0, "TYPE:NAME", "security label in place of the one that was kept"},
    OptionSpec{"lsm-mount-context", 0, "LABEL", "label of mounts in place of the one that was kept"},
    OptionSpec{"bundle", 'b', "DIR", "bundle directory (default: the current one)"},
    OptionSpec{"config", 'f', "FILE", "configuration in place of config.json"},
    OptionSpec{"pid-file", 0, "FILE", "write the first process' id there"},
    OptionSpec{"detach", 'd', nullptr, "do not wait for the container's end"},
    OptionSpec{"keep", 0, nullptr, "keep the container's state after its end"},
    OptionSpec{"no-subreaper", 0, nullptr, "has no effect: processes are only waited for in the foreground"},
};

CriuOptions criu_options(const Call& call) {
  CriuOptions criu;
  criu.program = call.global.criu;
  if (call.options.has("image-path")) criu.image_dir = call.options.value("image-path");
  criu.work_dir = call.options.value("work-path");
  criu.manage_cgroups = call.options.value("manage-cgroups-mode");
  criu.tcp_established = call.options.flag("tcp-established");
  criu.ext_unix_sk = call.options.flag("ext-unix-sk");
  criu.shell_job = call.options.flag("shell-job");
  criu.file_locks = call.options.flag("file-locks");
  criu.lazy_pages = call.options.flag("lazy-pages");
  criu.auto_dedup = call.options.flag("auto-dedup");
  for (const std::string& kind : call.options.all("empty-ns"))
    if (kind != "network" && kind != "net") throw_usage("option --empty-ns: {} is not network", quoted(kind));
  return criu;
}

int checkpoint(const Call& call) {
  CriuOptions criu = criu_options(call);
  criu.parent_dir = call.options.value("parent-path");
  criu.leave_running = call.options.flag("leave-running");
  criu.tcp_skip_in_flight = call.options.flag("tcp-skip-in-flight");
  criu.page_server = call.options.value("page-server");
  criu.status_fd = call.options.number("status-fd", -1, 3, 1 << 20);
  criu.pre_dump = call.options.flag("pre-dump");
  checkpoint_container(call.global.root, call.words[0], criu);
  return 0;
}

int restore(const Call& call) {
  CreateOptions options;
  options.root = call.global.root;
  options.id = call.words[0];
  if (call.options.has("bundle")) options.bundle = call.options.value("bundle");
  if (call.options.has("config")) options.config = call.options.value("config");
  options.pid_file = call.options.value("pid-file");
  options.detach = call.options.flag("detach");
  options.keep = call.options.flag("keep");
  options.rootless = call.global.rootless;
  CriuOptions criu = criu_options(call);
  criu.lsm_profile = call.options.value("lsm-profile");
  criu.lsm_mount_context = call.options.value("lsm-mount-context");
  return restore_container(options, criu);
}

}  // namespace

const Command kCheckpoint = {
    "checkpoint", "ID", "write a running container to files, through criu", kCheckpointOptions, checkpoint, 1, 1};
const Command kRestore = {
    "restore", "ID", "let a container go on from its files, through criu", kRestoreOptions, restore, 1, 1};

}  // namespace kelp::runtime
