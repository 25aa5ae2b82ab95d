#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/context.h"
#include "spec/runtime_config.h"
#include "store/container_record.h"
#include "store/volumes.h"

namespace kelp::engine {

/// -v [SOURCE:]TARGET[:OPTIONS]. throws UsageError naming the text
store::MountRequest parse_volume_option(std::string_view text);
/// --mount type=…,source=…,target=…
store::MountRequest parse_mount_option(std::string_view text);
/// --tmpfs TARGET[:OPTIONS]
store::MountRequest parse_tmpfs_option(std::string_view text);

/// A volume to be filled from the image's directory at the same place before the first use, inside the session.
struct CopyUp {
  std::string volume;      ///< name
  std::string data;        ///< its _data directory on the host
  std::string image_path;  ///< in the container's root file system
};

/// :U: the tree at `host_path` gets the container user's ids before the start, inside S.
struct ChownRequest {
  std::string host_path;
};

/// :z and :Z where SELinux is on: the tree gets the label of files that containers may use.
struct RelabelRequest {
  std::string host_path;
  bool shared = false;  ///< :z: without the level of the container
};

/// An overlay that the session mounts, for type=image and the option O.
struct SessionOverlay {
  store::Strings lowers;  ///< top first
  std::string directory;  ///< of the bundle, made where missing: mnt, and upper and work, which begin empty each time
  bool writable = false;
  std::string upper, work;  ///< the caller's own, which keep what is written; "" = those of the bundle
};

/// What subpath= names below the root of a volume, a directory of the host or an image, and the place in the bundle
/// that the session binds it to.
struct Subpath {
  std::string root, path, place;
};

struct MountPlan {
  std::vector<SessionOverlay> overlays;
  std::vector<Subpath> subpaths;
  std::vector<spec::Mount> mounts;  ///< user's, in the order to mount: parents first
  std::vector<CopyUp> copy_ups;
  std::vector<ChownRequest> chowns;
  std::vector<RelabelRequest> relabels;
};

/// Checks all requests (targets absolute, no two alike, sources there) without changing anything.
/// image_volumes: VOLUMEs of the image; those not covered become anonymous volumes, tmpfs or nothing.
/// returns the requests with relative sources made absolute and image volumes and --volumes-from added
std::vector<store::MountRequest> resolve_mount_requests(Context& context, const store::ContainerConfig& config,
                                                        const store::Strings& image_volumes);
/// In the session: mounts what the plan says, before the runtime binds it into the container.
void mount_overlays(const std::vector<SessionOverlay>& overlays);
/// In the session, after volumes are filled: binds each subpath to its place. What is in a volume or an image is a
/// stranger's, who may change it meanwhile: it is looked for once, as a process with its root there would, and what was
/// found is mounted, not its name. throws SysError naming a subpath that is not there
void bind_subpaths(const std::vector<Subpath>& subpaths);
/// Creates the volumes of a record that are missing; returns the names of those it made.
store::Strings create_missing_volumes(Context& context, const store::ContainerRecord& record);

/// Spec mounts of a record's requests. Sources are looked at again: throws Error "statfs /x: no such file or
/// directory".
MountPlan plan_mounts(Context& context, const store::ContainerRecord& record);

/// Whether the word stands among a request's options, as it is.
bool has_option(const store::MountRequest& request, std::string_view option);
/// What subpath= says, "/a/b"; "" = all of the source.
std::string subpath_of(const store::MountRequest& request);
/// One request to one spec mount; pure. volume_data: _data path of the volume, for type volume.
spec::Mount to_spec_mount(const store::MountRequest& request, const std::string& volume_data);

}  // namespace kelp::engine
