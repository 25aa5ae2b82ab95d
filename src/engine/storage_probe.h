#pragma once

#include <cstdint>
#include <string>

namespace kelp::engine {

struct Context;

/// How root file systems can be put together in the store, found by trying it in a scratch directory.
struct StorageFacts {
  std::string driver;                                 ///< "overlay", "fuse-overlayfs", "copy"
  std::string overlay_problem;                        ///< why no native overlay; "" = it works
  std::string fuse_program;                           ///< path of fuse-overlayfs, "" = not in PATH
  bool fuse_device = false;                           ///< /dev/fuse can be opened
  bool xattrs = false;                                ///< files of the store can have user.* attributes
  std::string filesystem;                             ///< "ext4", as mountinfo names it
  bool network = false;                               ///< another machine holds it (NFS, SMB, 9p, …)
  std::uint64_t total = 0, free = 0, free_files = 0;  ///< bytes, bytes for us, inodes; free_files 0 = not counted
};

/// Makes the store where there is none. throws Error when the store cannot be written at all
StorageFacts probe_storage(Context& context);

/// Why fuse-overlayfs cannot be had, as what follows its name: "is not installed"; "" = it can.
std::string fuse_problem(const StorageFacts& facts);

}  // namespace kelp::engine
