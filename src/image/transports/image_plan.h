#pragma once

#include <string>
#include <vector>

#include "image/transports/archive_view.h"
#include "spec/image_docs.h"

namespace kelp::image {

/// One image that was found in an archive, its documents parsed and checked against each other and the blobs.
struct ImagePlan {
  std::string manifest_text;  ///< as in the archive, or made from a docker-archive's
  std::string config_text;
  spec::ImageManifest manifest;
  spec::ImageConfig config;
  std::vector<StagedBlob*> layers;  ///< base first, borrowed from the view
  std::vector<std::string> names;   ///< full names
  std::string reference;            ///< an OCI layout's name for it as it stands there, "" = none
};

/// Reads whatever kind of image archive the view holds. throws Error naming the archive and the document
std::vector<ImagePlan> plan_images(ArchiveView& view);

}  // namespace kelp::image
