#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/context.h"
#include "engine/mounts.h"
#include "engine/network.h"
#include "store/container_record.h"

namespace kelp::engine {

struct GroupPlan;

/// Everything that one start of a container needs, resolved against the host and the other containers as they are
/// now. The same for the first start and each later one.
struct StartPlan {
  std::string bundle;             ///< containers/<id>; config.json has been written there
  store::Strings lowers;          ///< layer directories, top first; empty with --rootfs
  std::string rootfs;             ///< --rootfs directory, else ""
  bool volatile_overlay = false;  ///< --rm: nothing of the upper layer outlives the container
  NetworkPlan network;
  std::vector<CopyUp> copy_ups;  ///< see fill_volumes()
  std::vector<SessionOverlay> overlays;
  std::vector<Subpath> subpaths;
  std::vector<ChownRequest> chowns;
  std::vector<RelabelRequest> relabels;
  std::string file_label, shared_file_label;  ///< for these, see selinux_labels()
  std::uint32_t user_uid = 0, user_gid = 0;   ///< container user as ids of S, for :U and new volumes
  std::uint32_t root_uid = 0, root_gid = 0;   ///< container root as ids of S: owner of `/`
  /// Ids of running containers whose namespaces are joined: the session must be in their S.
  store::Strings joins;
  std::string stop_signal;  ///< name or number: the option's, the image's, "SIGTERM"
  store::StringMap labels;
  struct SecretFile {
    std::string path;  ///< on the host
    std::uint32_t uid, gid;
    unsigned mode;
  };
  std::vector<SecretFile> secrets;  ///< owners as ids of S
  struct BundleFile {
    std::string name, text;
  };
  std::vector<BundleFile> files;  ///< hosts, resolv.conf, hostname …: write_bundle()
  std::string config_json;        ///< the text of the bundle's config.json
  std::string cgroup_path;        ///< as in config.json
  int shm_of = 0;                 ///< --ipc container: pid whose /dev/shm is shared, 0 = none
  std::string workdir;            ///< of the process; made where it is missing
  bool tty = false;
  bool new_network = false;  ///< config.json asks for a network namespace of its own
  bool single_id = false;
  bool poststop_hooks = false;  ///< the runtime's delete has to run them
  store::Strings warnings;
};

/// Resolves all that. The caller holds the container's lock. group: the cgroup that it will be in.
StartPlan prepare_start(Context& context, const store::ContainerRecord& record, const GroupPlan& group);

/// Writes the plan's files into the bundle. They must be there before the runtime starts, and before fill_volumes()
/// where root of the container is another id than root of S.
void write_bundle(const StartPlan& plan);

/// In the session, once the root file system is mounted at `rootfs`: work directory made, empty new volumes filled
/// from the image, owners given for :U. root_fd: O_PATH of the mounted root.
void fill_volumes(Context& context, const StartPlan& plan, int root_fd);

/// Directories that make up the root file system, top first; with_upper: the container's own layer too.
store::Strings root_directories(Context& context, const store::ContainerRecord& record, bool with_upper);
/// "user[:group]" as the options, keep-id and the image say.
std::string effective_user(const store::ContainerRecord& record);
class LayeredRoot;
/// throws Error (126) when --workdir names something that will not be there
void check_workdir(const store::ContainerRecord& record, const LayeredRoot& root);
/// throws UsageError when --security-opt seccomp=FILE is not there or no profile
void check_seccomp_profile(const store::ContainerConfig& config);
/// throws Error with the reason when a limit was asked for and no cgroup can be had
void check_limits(Context& context, const store::ContainerConfig& config);

}  // namespace kelp::engine
