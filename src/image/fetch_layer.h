#pragma once

#include <mutex>
#include <stop_token>
#include <string>
#include <vector>

#include "image/progress.h"
#include "image/registry.h"
#include "store/images.h"
#include "store/layers.h"
#include "store/layout.h"

namespace kelp::image {

/// What the layers of one pull have in common. Shared by threads.
struct FetchContext {
  const store::Layout& layout;
  Registry& registry;
  const store::IdMapping& map;
  Progress& progress;
  bool unpack = true;  ///< false: keep the blobs only (no user namespace to unpack in)
  std::mutex mutex;    ///< of warnings
  std::vector<std::string> warnings;
};

/// Brings one layer in: its blob from the registry (resumed where an earlier try broke off) and, in the same pass, its
/// files. What is there already is neither fetched nor unpacked; another process that fetches the same blob is waited
/// for. Blob and layer are published only when the blob has the digest of the manifest and the tar the diff id of the
/// configuration.
///
/// throws  Error naming the blob; Cancelled when `stop` was requested. Nothing was published then
void fetch_layer(FetchContext& context, const store::ImageLayer& layer, const std::stop_token& stop);

/// All layers, a few at a time; the first error stops the others and is thrown.
void fetch_layers(FetchContext& context, const std::vector<store::ImageLayer>& layers);

}  // namespace kelp::image
