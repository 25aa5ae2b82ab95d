#include "cli/global_options.h"

namespace kelp::cli {

void add_global_options(OptionSet& options, ProgramOptions& values, bool with_version) {
  options.group("Global options");
  options.text("root", values.engine.root, "DIR", "directory of images, containers and volumes")
      .complete(Complete::directory)
      .shows("$XDG_DATA_HOME/kelp");
  options.text("runroot", values.engine.run_root, "DIR", "directory of the state of running containers")
      .complete(Complete::directory)
      .shows("$XDG_RUNTIME_DIR/kelp")
      .also("tmpdir");
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
  options
      .list("cdi-spec-dir", values.engine.cdi_spec_dirs, "DIR",
            "directory of CDI files (files of drivers that describe devices); the last wins")
      .shows("/etc/cdi, /var/run/cdi")
      .complete(Complete::directory);
  options.text("conmon", values.engine.monitor, "FILE", "the monitor program, instead of kelp-monitor")
      .complete(Complete::file);
  options.text("storage-driver", values.engine.storage_driver, "NAME", "how root file systems are put together")
      .one_of({"overlay", "vfs"})
      .shows("overlay, else a copy");
  options.list("storage-opt", values.engine.storage_options, "KEY=VALUE",
               "overlay.mount_program=FILE: mount with this fuse-overlayfs");
  options.list("module", values.engine.modules, "FILE", "settings file that is read after kelp.toml")
      .complete(Complete::file);
  options
      .custom(
          "events-backend", Kind::text,
          [&values](const std::string& text) { values.engine.keep_events = text == "file"; }, "NAME",
          "where events are kept")
      .one_of({"file", "none"})
      .shows("file");
  options.text("config", values.docker_config, "DIR", "directory of a docker config.json with credentials")
      .complete(Complete::directory);
  options.text("out", values.out, "FILE", "write standard output to a file").complete(Complete::file);
  options.text("log-level", values.log_level, "LEVEL", "messages to show")
      .one_of({"trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"})
      .exits_with(1)  // as podman has it for this option alone
      .shows("warn");
  if (with_version) options.flag("version,v", values.version, "print the version");
  options.mark_inherited();
}

}  // namespace kelp::cli
