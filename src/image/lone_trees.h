#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "image/compression.h"
#include "image/progress.h"
#include "store/images.h"
#include "store/layers.h"
#include "store/layout.h"

/// keep-blobs = false: once a layer is unpacked and durable its blob goes, and the tree stands alone (store::LoneTree).
/// It is read as an archive where a blob is wanted after all; that archive has the same files, but other bytes than the
/// one that came.
namespace kelp::image {

struct GivenUp {
  std::uint64_t blobs = 0;
  std::uint64_t bytes = 0;
};

/// Moves the blobs of all layers that can do without to the trash. One stays while it belongs to a local index or an
/// artifact, or while one of the layers made of it is not durable under a usual map. Does nothing while somebody else
/// uses the store: a later run finds them. Inside S.
/// cost  reads the tree of each layer whose blob goes, once
GivenUp give_up_blobs(const store::Layout& layout);

/// "sha256:…" of a layer's tree as an archive: equal for equal trees.
std::string tree_digest(const store::Layout& layout, std::string_view chain, const store::IdMapping& map);

/// The tree as an uncompressed archive. read() throws what went wrong in it.
std::unique_ptr<Source> open_lone_tree(const store::Layout& layout, std::string_view chain,
                                       const store::LoneTree& tree);

/// The image itself where all its blobs are in the store. Else one that has the same files: layers without a blob are
/// packed anew, and so layers, configuration and manifest have other digests; a warning says so. The new blobs belong
/// to no image: hold StoreUse while they are needed, a later sweep takes them away. throws  Error for a layer that has
/// neither blob nor tree
store::ImageRecord with_blobs(const store::Layout& layout, const store::ImageRecord& image, Progress& progress);

}  // namespace kelp::image
