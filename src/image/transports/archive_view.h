#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/digest_name.h"
#include "image/compression.h"
#include "store/blobs.h"
#include "store/layout.h"

namespace kelp::image {

/// One file of an archive, copied beside the store's blobs and hashed, not yet published.
struct StagedBlob {
  DigestName digest;
  std::uint64_t size = 0;
  Compression compression = Compression::none;
  store::BlobWriter writer;
};

/// The files of an image archive or image directory by their path, whatever they are kept in.
///
/// Nothing is published by looking: staged blobs vanish with the view.
class ArchiveView {
 public:
  virtual ~ArchiveView() = default;
  [[nodiscard]] virtual bool has(const std::string& path) = 0;
  /// The whole of a small file; nullopt when there is none. throws Error above `max` bytes
  virtual std::optional<std::string> text(const std::string& path, size_t max) = 0;
  /// A staged file. throws Error "the archive lacks PATH"
  virtual StagedBlob& blob(const std::string& path) = 0;
  /// What it is called in errors: the file name, or "standard input".
  [[nodiscard]] const std::string& what() const noexcept { return what_; }

 protected:
  explicit ArchiveView(std::string what) : what_(std::move(what)) {}

 private:
  std::string what_;
};

/// A tar archive (compressed or not), read once from start to end.
std::unique_ptr<ArchiveView> open_tar_view(const store::Layout& layout, Source& source, const std::string& what);
/// A directory; files are staged when they are asked for.
std::unique_ptr<ArchiveView> open_directory_view(const store::Layout& layout, const std::string& path);

}  // namespace kelp::image
