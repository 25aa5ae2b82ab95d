#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <stop_token>
#include <string>
#include <vector>

#include "image/http.h"
#include "image/progress.h"
#include "image/registry.h"
#include "store/images.h"
#include "store/layers.h"
#include "store/layout.h"

namespace kelp::image {

/// Where blobs come from: streams one from byte `offset` on. `bound` = its full size: more is an error, less is seen
/// here. Called by several threads. throws Error, Cancelled when `stop` was requested
using BlobSupply = std::function<void(const DigestName& digest, std::uint64_t offset, std::uint64_t bound,
                                      const BodySink& sink, const std::stop_token& stop)>;
BlobSupply supply_from(Registry& registry);

/// What the layers of one pull have in common. Shared by threads.
struct FetchContext {
  const store::Layout& layout;
  BlobSupply supply;
  const store::IdMapping& map;
  Progress& progress;
  bool unpack = true;      ///< false: keep the blobs only (no user namespace to unpack in)
  bool keep_blobs = true;  ///< false: what is unpacked already needs no blob
  std::mutex mutex;        ///< of warnings
  std::vector<std::string> warnings;
};

/// Brings one layer in: its blob from the supply (resumed where an earlier try broke off) and, in the same pass, its
/// files. What is there already is neither fetched nor unpacked; another process that fetches the same blob is waited
/// for. Blob and layer are published only when the blob has the digest of the manifest and the tar the diff id of the
/// configuration.
///
/// throws  Error naming the blob; Cancelled when `stop` was requested. Nothing was published then
void fetch_layer(FetchContext& context, const store::ImageLayer& layer, const std::stop_token& stop);

/// throws  Error where the blobs that are not here are larger than what is free
void check_free_space(const store::Layout& layout, const std::vector<store::ImageLayer>& layers, bool keep_blobs);

/// All layers, a few at a time; the first error stops the others and is thrown.
void fetch_layers(FetchContext& context, const std::vector<store::ImageLayer>& layers);

}  // namespace kelp::image
