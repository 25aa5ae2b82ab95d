#pragma once

#include <string>
#include <vector>

#include "image/progress.h"
#include "store/images.h"
#include "store/layers.h"

namespace kelp::image {

struct LoadOptions {
  const store::IdMapping* map = nullptr;  ///< null: blobs only, nothing is unpacked
  std::string reference;                  ///< only the image that the archive calls so; "" = all of them
  std::string transport;                  ///< for policy.json: oci, dir, …; "" = by what the archive is
};

struct LoadResult {
  std::vector<store::ImageRecord> images;
  std::vector<std::vector<std::string>> names;  ///< of each image, as the archive names it
  std::vector<std::string> warnings;
};

/// Loads all images of an archive or directory: docker-archive, oci-archive (plain or compressed), OCI layout
/// directory, `dir:` directory. Every digest is checked, layers are unpacked; only then an image becomes visible.
///
/// path  "" or "-" = standard input
/// throws Error naming the file and what is wrong with it; the store is as before
LoadResult load_images(const store::Layout& layout, const std::string& path, const LoadOptions& options,
                       Progress& progress);

}  // namespace kelp::image
