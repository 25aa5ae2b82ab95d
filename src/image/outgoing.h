#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/owned.h"
#include "image/compression.h"
#include "image/progress.h"
#include "spec/image_docs.h"
#include "store/blobs.h"
#include "store/images.h"
#include "store/layout.h"

namespace kelp::image {

/// How an image is to look where it goes. The default is: as it is kept, byte for byte.
struct OutgoingOptions {
  std::string format;                      ///< "oci", "v2s2" or "" = as kept
  std::optional<Compression> compression;  ///< for layers that are kept uncompressed; gzip or zstd
  int level = 0;                           ///< 0 = the format's default
  bool force = false;                      ///< layers of the other compression are packed again, too
  bool again = false;                      ///< with `force`: also those of this compression (another level)
  bool pack_plain = false;                 ///< uncompressed layers are packed with gzip when `compression` is not given
};

/// One blob of it: in the store, or made for this purpose in an unnamed file.
struct OutgoingBlob {
  DigestName digest;
  std::uint64_t size = 0;
  Fd file;                                  ///< open at its start, or
  std::unique_ptr<store::BlobWriter> made;  ///< holds the bytes of a layer that was packed again

  [[nodiscard]] int fd() const noexcept { return made ? made->fd() : file.get(); }
};

struct OutgoingImage {
  spec::ImageManifest manifest;
  std::string manifest_text;
  DigestName digest;
  std::vector<OutgoingBlob> blobs;  ///< layers base first, each once, then the config
};

/// Opens, and where options want it packs, all blobs of a manifest; several layers are packed at once.
///
/// Layers whose blobs were given up are packed anew (see with_blobs()).
/// throws  UsageError where the wanted format cannot hold the image (zstd layers in v2s2), Error for damaged blobs
/// cost    reads no blob unless it has to be packed
OutgoingImage prepare_outgoing(const store::Layout& layout, const std::string& manifest_digest,
                               const OutgoingOptions& options, Progress& progress);

/// The manifest's media types in the words of the other kind. throws UsageError for what v2s2 has no word for
void convert_manifest(spec::ImageManifest& manifest, bool docker);

/// "gzip" or "zstd" with a level as a user gives them. throws UsageError naming what there is
Compression parse_compression(const std::string& text);
int parse_compression_level(const std::string& text, Compression compression);

}  // namespace kelp::image
