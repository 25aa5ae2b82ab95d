#pragma once

#include <functional>
#include <string>
#include <vector>

#include "image/compression.h"
#include "image/outgoing.h"
#include "image/progress.h"
#include "store/images.h"

namespace kelp::image {

/// An image and the full names that the archive gives it.
struct SavedImage {
  store::ImageRecord image;
  std::vector<std::string> names;
};

/// docker save's format: layers as plain tars, manifest.json, repositories.
void save_docker_archive(const store::Layout& layout, const std::vector<SavedImage>& images, Sink& out,
                         Progress& progress);
/// An OCI layout as a tar. Blobs go out as they are kept unless `packing` says otherwise; Docker's manifests get OCI's
/// media types.
void save_oci_archive(const store::Layout& layout, const std::vector<SavedImage>& images, Sink& out,
                      const OutgoingOptions& packing, Progress& progress);
/// An OCI layout directory; an existing one gets the images added.
void save_oci_directory(const store::Layout& layout, const std::vector<SavedImage>& images, const std::string& path,
                        const OutgoingOptions& packing, Progress& progress);
/// A `dir:` directory of one image: manifest.json, version, blobs by their hex digits.
/// compress  layers that are kept uncompressed are written as gzip
void save_plain_directory(const store::Layout& layout, const store::ImageRecord& image, const std::string& path,
                          bool compress, Progress& progress);

/// An archive goes to standard output ("" or "-"), to a device or pipe as it is, or to a file that appears when it is
/// complete. throws what `save` throws; nothing is left then
void write_archive(const std::string& path, const std::function<void(Sink&)>& save);

}  // namespace kelp::image
