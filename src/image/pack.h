#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "image/compression.h"
#include "store/layers.h"

namespace kelp::image {

struct PackOptions {
  store::IdMapping map;  ///< ids on disk → ids in the archive
  /// true: the tree is an overlay's upper directory: whiteouts and opaque marks become .wh. members.
  bool overlay = false;
  std::vector<std::string> owners_files;  ///< single-ID mode: intended owners (store::owners_path), later ones win
};

struct PackResult {
  std::uint64_t files = 0;
  std::vector<std::string> warnings;
};

/// Writes a directory tree as a tar archive, in byte order of names, hard links as such: equal trees give equal bytes.
/// Sockets are left out. A file that changes while it is read is cut or filled with zeros to the size it had.
/// user.overlay.*, trusted.* and security.selinux never go out.
/// throws SysError naming the path
PackResult pack_tree(int root_fd, Sink& out, const PackOptions& options);

}  // namespace kelp::image
