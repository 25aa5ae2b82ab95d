#pragma once

#include <string>
#include <vector>

#include "store/images.h"

namespace kelp::cli {

/// What `image tree` prints of one image: its names, size and layers, each with the images that it is the top of.
/// images  all there are, whole records
std::string image_tree(const store::Layout& layout, const std::vector<store::ImageRecord>& images,
                       const store::ImageRecord& image);

}  // namespace kelp::cli
