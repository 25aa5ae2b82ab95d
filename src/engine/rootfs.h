#pragma once

#include <string>
#include <vector>

#include "base/owned.h"

namespace kelp::engine {

/// The writable root file system of a container.
struct RootfsPlan {
  std::string directory;            ///< containers/<id>: upper, work and merged are made in it
  std::vector<std::string> lowers;  ///< topmost first
  bool volatile_overlay = false;    ///< the container is thrown away when it ends (--rm)
  std::string driver;               ///< "" = by trying; overlay: native or fuse; vfs: a copy
  std::string fuse_program;         ///< "" = fuse-overlayfs, where there is no native overlay; else this, always
};

/// --storage-driver and --storage-opt. throws UsageError for an unknown option
void apply_storage_choice(RootfsPlan& plan, const std::string& driver, const std::vector<std::string>& options);

/// Mounts it at <directory>/merged in the calling process, which is uid 0 of S in a mount namespace of its own and
/// holds the container's lock. By trying: native overlay; for a container that is thrown away a native overlay whose
/// upper directory is a tmpfs of this session, where there is memory for it; fuse-overlayfs (a child process that lives
/// as long as the mount); a copy of all layers, by reflink where the file system can, kept as the upper directory.
///
/// returns  how: "overlay", "overlay on tmpfs", "fuse-overlayfs", "copy"
/// throws   SysError of the overlay when nothing worked
const char* mount_rootfs(const RootfsPlan& plan);

/// The bottom layer of every container: the usual mount points, empty. Where the image has none of its own, they would
/// be made in each container's upper directory, with copies of their parents, and deleted with it (0.7 ms in all).
/// layers_dir  where it is, and is made by the first start
/// returns     "" when it cannot be made: nothing depends on it
std::string mount_points_layer(const std::string& layers_dir);

/// Copies one unpacked layer over a directory as overlayfs would show it: whiteouts delete, opaque directories replace.
void merge_layer(int layer_fd, int target_fd);

}  // namespace kelp::engine
