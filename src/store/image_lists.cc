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

using Fits = bool (*)(const IndexEntry& entry);

bool is_list(const IndexEntry& entry) { return entry.id.empty() && spec::is_index_type(entry.media_type); }
/// Or an image that another tool has put there; its manifest tells.
bool is_other(const IndexEntry& entry) { return entry.id.empty() && spec::is_manifest_type(entry.media_type); }

/// Digest of the document meant, "" = none.
std::string digest_of(const std::vector<IndexEntry>& entries, std::string_view name, Fits fits) {
  for (const IndexEntry& entry : entries) {
    if (fits(entry) && entry.manifest == name) return entry.manifest;
  }
  for (const spec::ImageName& candidate : spec::local_candidates(name)) {
    const std::string full = candidate.full(), base = candidate.base();
    for (const IndexEntry& entry : entries) {
      if (!fits(entry)) continue;
      if (entry.name == full) return entry.manifest;
      if (candidate.digest.empty() || entry.manifest != candidate.digest) continue;
      const bool ours = std::find(entry.repos.begin(), entry.repos.end(), base) != entry.repos.end();
      if (ours || starts_with(entry.name, base + ":")) return entry.manifest;
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

/// nullopt: none of that name, or it is an image.
std::optional<ImageList> artifact_in(const Layout& layout, const std::vector<IndexEntry>& entries,
                                     std::string_view name) {
  const std::string digest = digest_of(entries, name, is_other);
  if (digest.empty()) return std::nullopt;
  ImageList artifact = assemble(entries, digest);
  artifact.text = read_blob(layout, DigestName::require(digest), spec::kMaxDocumentBytes);
  if (!spec::is_artifact(spec::parse_manifest(artifact.text, "manifest " + digest))) return std::nullopt;
  return artifact;
}

[[noreturn]] void throw_no_list(std::string_view name) {
  throw UsageError(fmt::format("{}: image index not known", printable(name)))
      .with_hint(fmt::format("kelp manifest create {}", printable(name)));
}

}  // namespace

std::optional<ImageList> find_list(const Layout& layout, std::string_view name) {
  const std::vector<IndexEntry> entries = read_full_entries(layout);
  const std::string digest = digest_of(entries, name, is_list);
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
    const std::string digest = digest_of(entries, name, is_list);
    if (digest.empty()) throw_no_list(name);
    removed = assemble(entries, digest);
    std::erase_if(entries, [&](const IndexEntry& entry) { return entry.manifest == digest; });
  });
  return removed;
}

std::optional<ImageList> find_artifact(const Layout& layout, std::string_view name) {
  return artifact_in(layout, read_full_entries(layout), name);
}

void put_artifact(const Layout& layout, const std::string& name, const std::string& repo,
                  const spec::Descriptor& manifest) {
  edit_index(layout, [&](std::vector<IndexEntry>& entries) {
    IndexEntry fresh{.manifest = manifest.digest, .media_type = manifest.media_type, .size = manifest.size};
    if (!repo.empty()) fresh.repos = {repo};
    fresh.name = name;
    const bool known = std::any_of(entries.begin(), entries.end(),
                                   [&](const IndexEntry& entry) { return entry.manifest == fresh.manifest; });
    if (!name.empty() || !known) place_name(entries, fresh);
  });
}

std::optional<std::vector<std::string>> remove_artifact(const Layout& layout, std::string_view name) {
  std::optional<std::vector<std::string>> gone;
  edit_index(layout, [&](std::vector<IndexEntry>& entries) {
    const auto artifact = artifact_in(layout, entries, name);
    if (!artifact) return;
    for (const spec::ImageName& candidate : spec::local_candidates(name)) {
      const std::string full = candidate.full();
      const auto& names = artifact->names;
      if (names.size() < 2 || std::find(names.begin(), names.end(), full) == names.end()) continue;
      take_name(entries, full);
      gone = {full};
      return;
    }
    gone = artifact->names;
    std::erase_if(entries, [&](const IndexEntry& entry) { return entry.manifest == artifact->digest; });
  });
  return gone;
}

}  // namespace kelp::store
