#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/owned.h"
#include "image/compression.h"

namespace kelp::image {

/// A layer's tar, byte for byte, from the tree that another engine unpacked it into and the recipe that it kept: the
/// lines of tar-split (containers/storage: overlay-layers/ID.tar-split.gz; Docker: layerdb/…/tar-split.json.gz) hold
/// what is not file data (headers, padding) and name the files between. Whoever reads checks the digest: a file that
/// was changed in that store is found by it.
///
/// source: github.com/vbatts/tar-split, tar/storage/entry.go
class TarSplitSource : public Source {
 public:
  /// recipe  its lines, uncompressed; borrowed
  /// tree    directory that file names are looked up in, none of them leads out of it; borrowed
  TarSplitSource(Source& recipe, int tree, std::string what);
  /// throws  Error for a damaged recipe, or a file that is gone or has become shorter
  size_t read(void* buffer, size_t size) override;

 private:
  bool next_entry();

  Source& recipe_;
  const int tree_;
  const std::string what_;
  std::string lines_;   ///< read, not yet taken apart
  size_t line_at_ = 0;  ///< where the next line begins in it
  std::string bytes_;   ///< of the entry now: a piece of the archive itself, or
  size_t bytes_at_ = 0;
  Fd file_;  ///< a file's data
  std::string name_;
  std::uint64_t file_left_ = 0;
};

/// Bytes of the tar that a recipe makes. throws Error for a damaged one
std::uint64_t tar_split_size(Source& recipe, const std::string& what);

}  // namespace kelp::image
