#include "base/error.h"
#include "base/text.h"
#include "cli/options_run.h"
#include "engine/mounts.h"
#include "engine/secrets.h"

namespace kelp::cli {

void add_mount_options(OptionSet& options, RunOptions& values) {
  auto& config = values.config;
  options.group("Files");
  options
      .custom(
          "volume,v", Kind::list,
          [&config](const std::string& text) { config.mounts.push_back(engine::parse_volume_option(text)); },
          "[SOURCE:]DIR[:OPTIONS]", "bind a directory of the host, or a volume, into the container")
      .complete(Complete::mount);
  options.custom(
      "mount", Kind::list,
      [&config](const std::string& text) { config.mounts.push_back(engine::parse_mount_option(text)); },
      "type=TYPE,KEY=VALUE,...", "mount a bind, volume or tmpfs");
  options.custom(
      "tmpfs", Kind::list,
      [&config](const std::string& text) { config.mounts.push_back(engine::parse_tmpfs_option(text)); },
      "DIR[:OPTIONS]", "mount a tmpfs");
  options.list("volumes-from", config.volumes_from, "CONTAINER[:OPTIONS]", "the volumes of another container")
      .complete(Complete::container);
  options
      .custom(
          "secret", Kind::list,
          [&config](const std::string& text) { config.secrets.push_back(engine::parse_secret_option(text)); },
          "NAME[,KEY=VALUE...]", "give a secret as a file or, with type=env, as a variable: target, uid, gid, mode")
      .complete(Complete::secret);
  options.flag("read-only", config.read_only, "make the root file system read-only");
  options.flag("read-only-tmpfs", config.read_only_tmpfs, "with --read-only: tmpfs on /tmp, /run, /var/tmp")
      .shows("true");
  options.text("image-volume", config.image_volume, "MODE", "what becomes of volumes that the image declares")
      .one_of({"anonymous", "bind", "tmpfs", "ignore"})
      .empty_means("anonymous")
      .shows("anonymous");
  options.size("shm-size", config.resources.shm_size, "size of /dev/shm").shows("64m");
  options
      .csv("device", config.devices, "HOST[:CONTAINER[:rwm]]",
           "pass a device of the host, or one that a CDI file describes: VENDOR/CLASS=NAME")
      .complete(Complete::file);
  options.csv(
      "gpus", [&config](const std::string& name) { config.devices.push_back("nvidia.com/gpu=" + name); }, "NAME",
      "pass a GPU by its name in the CDI files of nvidia.com/gpu; all: each of them");
}

}  // namespace kelp::cli
