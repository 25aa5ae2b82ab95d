#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "spec/image_docs.h"
#include "store/layout.h"
#include "sys/lock.h"

/// index.json as rows, one per (manifest, name), and its plain text copy `images/names`.
namespace kelp::store {

/// What a listing shows of an image. It stands in the copy only, so that a listing reads one file and not one per
/// image.
struct ImageSummary {
  std::string created;     ///< RFC 3339 as in the config
  std::uint64_t size = 0;  ///< ImageRecord's
  spec::Platform platform;
};

struct IndexEntry {
  std::string manifest;  ///< "sha256:…"
  std::string media_type;
  std::uint64_t size = 0;
  std::string id;                   ///< hex of the config digest; "" = written by another tool
  std::string list;                 ///< digest of the image index it came from
  std::string name;                 ///< full name, "" = none
  std::vector<std::string> repos;   ///< repositories that its digests are known in
  std::vector<std::string> former;  ///< names that its image (or index) has had and has no more, oldest first
  spec::Platform platform;
  spec::StringMap other;  ///< annotations of other tools, kept as they are
  std::optional<ImageSummary> summary;
};

/// The rows now; empty when there is no index yet. No lock: from the copy where that belongs to this very index.json,
/// else from the JSON. Rows of the copy have neither media_type, size, platform nor other annotations; those of the
/// JSON have no summary.
std::vector<IndexEntry> read_entries(const Layout& layout);
/// All of index.json, also what the copy leaves out.
std::vector<IndexEntry> read_full_entries(const Layout& layout);

/// Reads, changes and publishes index.json under locks/images (rename, fsync), then its copy. `records` are files that
/// become visible before it; blobs that were published are on the disk before either. Nothing is written when `edit`
/// throws; the index is not when it changes nothing. Records of manifests that no row names any more go.
void edit_index(const Layout& layout, const std::function<void(std::vector<IndexEntry>&)>& edit,
                const std::vector<sys::NewContent>& records = {});

/// Gives fresh.name to fresh's manifest. Who had it keeps its other names or becomes dangling; a nameless row of the
/// same manifest is used up.
void place_name(std::vector<IndexEntry>& entries, const IndexEntry& fresh);
/// Takes a name away; the last row of a manifest stays without a name.
void take_name(std::vector<IndexEntry>& entries, const std::string& name);

}  // namespace kelp::store
