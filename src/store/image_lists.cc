#include "store/image_lists.h"

#include <algorithm>

#include "base/digest_name.h"
#include "base/error.h"
#include "base/text.h"
#include "spec/image_name.h"
#include "store/blobs.h"
#include "store/image_index.h"

namespace kelp::store {

namespace {

bool is_list(const IndexEntry& entry) { return entry.id.empty() && spec::is_index_type(entry.media_type); }

/// Digest of the index meant, "" = none.
std::string digest_of(const std::vector<IndexEntry>& entries, std::string_view name) {
  for (const IndexEntry& entry : entries) {
    if (is_list(entry) && entry.manifest == name) return entry.manifest;
  }
  for (const spec::ImageName& candidate : spec::local_candidates(name)) {
    const std::string full = candidate.full();
    for (const IndexEntry& entry : entries) {
      if (is_list(entry) && entry.name == full) return entry.manifest;
    }
  }
  return "";
}

ImageList assemble(const std::vector<IndexEntry>& entries, const std::string& digest) {
  ImageList list;
  list.digest = digest;
  for (const IndexEntry& entry : entries) {
    if (entry.manifest != digest) continue;
    list.media_type = entry.media_type;
    if (!entry.name.empty()) list.names.push_back(entry.name);
  }
  return list;
}

[[noreturn]] void throw_no_list(std::string_view name) {
  throw UsageError(fmt::format("{}: image index not known", printable(name)))
      .with_hint(fmt::format("kelp manifest create {}", printable(name)));
}

}  // namespace

std::optional<ImageList> find_list(const Layout& layout, std::string_view name) {
  const std::vector<IndexEntry> entries = read_full_entries(layout);
  const std::string digest = digest_of(entries, name);
  if (digest.empty()) return std::nullopt;
  ImageList list = assemble(entries, digest);
  list.text = read_blob(layout, DigestName::require(digest), spec::kMaxDocumentBytes);
  return list;
}

ImageList require_list(const Layout& layout, std::string_view name) {
  if (auto list = find_list(layout, name)) return std::move(*list);
  throw_no_list(name);
}

std::vector<ImageList> all_lists(const Layout& layout) {
  const std::vector<IndexEntry> entries = read_full_entries(layout);
  std::vector<ImageList> result;
  for (const IndexEntry& entry : entries) {
    const bool known =
        std::any_of(result.begin(), result.end(), [&](const ImageList& list) { return list.digest == entry.manifest; });
    if (is_list(entry) && !known) result.push_back(assemble(entries, entry.manifest));
  }
  return result;
}

void put_list(const Layout& layout, const std::string& name, const spec::Descriptor& document) {
  edit_index(layout, [&](std::vector<IndexEntry>& entries) {
    IndexEntry fresh{.manifest = document.digest, .media_type = document.media_type, .size = document.size};
    fresh.name = name;
    place_name(entries, fresh);
    std::erase_if(entries, [](const IndexEntry& entry) { return is_list(entry) && entry.name.empty(); });
  });
}

ImageList remove_list(const Layout& layout, std::string_view name) {
  ImageList removed;
  edit_index(layout, [&](std::vector<IndexEntry>& entries) {
    const std::string digest = digest_of(entries, name);
    if (digest.empty()) throw_no_list(name);
    removed = assemble(entries, digest);
    std::erase_if(entries, [&](const IndexEntry& entry) { return entry.manifest == digest; });
  });
  return removed;
}

}  // namespace kelp::store
