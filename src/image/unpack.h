#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "image/compression.h"
#include "store/images.h"
#include "store/layers.h"

namespace kelp::image {

/// Bytes of the compressed blob consumed so far.
using BytesFn = std::function<void(std::uint64_t done)>;

struct UnpackOptions {
  store::IdMapping map;
  std::string owners_file;                ///< single-ID mode: where intended owners go, "" = nowhere
  bool whiteouts = true;                  ///< .wh. files become overlay whiteouts; false: a plain tree (import, cp)
  std::optional<std::uint32_t> uid, gid;  ///< owner of everything, instead of the archive's
  BytesFn progress;
};

struct UnpackResult {
  std::string diff_id;                ///< "sha256:…" of the uncompressed tar
  std::uint64_t bytes = 0;            ///< its size
  std::uint64_t files = 0;            ///< entries
  std::vector<std::string> warnings;  ///< "12 files belong to ids outside the map (first: …)", skipped device nodes, …
};

/// Unpacks one layer archive (compressed or not) below an empty directory. Runs with the capabilities of S's root.
///
/// Never leaves the root: each parent is opened step by step below it, and a symlink on the way is an error, as are
/// "..", absolute names and hard links to anything but an earlier regular file of the same archive.
/// throws Error naming the entry; the directory is then half filled and must be thrown away
UnpackResult unpack_layer(Source& blob, const std::string& what, int root_fd, const UnpackOptions& options);

/// One layer of an image from its blob in the store into layers/. Returns at once when it is ready. Safe to call in
/// parallel for different layers and from several processes for the same one.
/// throws Error when the tar's digest is not the layer's diff id; nothing is published then
void ensure_layer(const store::Layout& layout, const store::ImageLayer& layer, const store::IdMapping& map,
                  const BytesFn& progress = {}, std::vector<std::string>* warnings = nullptr);

/// All layers of an image that are missing, up to `threads` at a time (0 = processors).
/// progress  called from several threads, under a lock: layer and bytes of its blob done
void ensure_layers(const store::Layout& layout, const std::vector<store::ImageLayer>& layers,
                   const store::IdMapping& map,
                   const std::function<void(const store::ImageLayer&, std::uint64_t done)>& progress = {},
                   std::vector<std::string>* warnings = nullptr, unsigned threads = 0);

/// In a detached child: makes the unpacked layers durable and marks them (store::sync_layers), then takes away what
/// killed runs have left (store::empty_trash). Call last, after the result was printed; the caller's exit does not wait
/// for it.
/// give_up  also gives up blobs that their layers can do without (lone_trees.h)
void sync_layers_in_background(const store::Layout& layout, bool give_up);

}  // namespace kelp::image
