#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "image/progress.h"
#include "image/transports/foreign_image.h"
#include "store/images.h"
#include "store/layers.h"
#include "store/layout.h"

namespace kelp::image {
struct VerbRequest;
}

namespace kelp::image {

/// Who has the image: for messages and for what its layers are made from.
struct TakeOverContext {
  const store::Layout& layout;
  const store::IdMapping& map;
  Progress& progress;
  bool unpack = true;  ///< false: keep blobs only
  std::string owner;   ///< "podman", "docker"
  std::vector<std::string> warnings;
};

/// Copies an image of another engine's store: configuration and diff ids are the same. That store has unpacked its
/// layers; their tars are made again and kept as such, unless the blobs that the manifest names are here. The manifest
/// is the one that store has where all of its blobs are, else a new one (a warning says so).
///
/// before  StoreUse is held
/// throws  Error naming image and layer: nothing of it is visible then
store::ImageRecord take_over(TakeOverContext& context, const ForeignImage& image);

/// "containers-storage:…": what `pull` takes from podman's store.
bool is_stored_image(std::string_view name);
std::string pull_stored_image(VerbRequest& request);

}  // namespace kelp::image
