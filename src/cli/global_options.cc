#include "cli/global_options.h"

namespace kelp::cli {

void add_global_options(OptionSet& options, ProgramOptions& values, bool with_version) {
  options.group("Global options");
  options.text("root", values.engine.root, "DIR", "directory of images, containers and volumes")
      .complete(Complete::directory)
      .shows("$XDG_DATA_HOME/kelp");
  options.text("runroot", values.engine.run_root, "DIR", "directory of the state of running containers")
      .complete(Complete::directory)
      .shows("$XDG_RUNTIME_DIR/kelp");
  options.text("runtime", values.engine.runtime, "PROGRAM", "OCI runtime, by name or path")
      .complete(Complete::command)
      .shows("kelp-oci");
  options.list("runtime-flag", values.engine.runtime_flags, "FLAG", "option for the runtime, without its dashes");
  options.text("cgroup-manager", values.engine.cgroup_manager, "NAME", "how cgroups are made")
      .one_of({"systemd", "cgroupfs"});
  options.text("network-cmd-path", values.engine.slirp4netns, "FILE", "the slirp4netns program")
      .complete(Complete::file);
  options.list("hooks-dir", values.engine.hooks_dirs, "DIR", "directory of OCI hook files")
      .complete(Complete::directory);
  options.text("log-level", values.log_level, "LEVEL", "messages to show")
      .one_of({"trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"})
      .shows("warn");
  if (with_version) options.flag("version,v", values.version, "print the version");
  options.mark_inherited();
}

}  // namespace kelp::cli
