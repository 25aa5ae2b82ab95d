#include "store/image_lists.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>

#include "base/digest_name.h"
#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"
#include "spec/image_name.h"
#include "store/blobs.h"
#include "store/image_index.h"

namespace kelp::store {

namespace {

using Fits = bool (*)(const IndexEntry& entry);

std::string hex_of(const std::string& digest) { return digest.substr(digest.find(':') + 1); }

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

/// The name that was meant, or with the last one all of it. Returns the names that are gone.
std::vector<std::string> take_away(std::vector<IndexEntry>& entries, const ImageList& found, std::string_view name) {
  for (const spec::ImageName& candidate : spec::local_candidates(name)) {
    const std::string full = candidate.full();
    if (found.names.size() < 2 || std::find(found.names.begin(), found.names.end(), full) == found.names.end())
      continue;
    take_name(entries, full);
    return {full};
  }
  std::erase_if(entries, [&](const IndexEntry& entry) { return entry.manifest == found.digest; });
  return found.names;
}

/// By a beginning of its id, as images are; "" = none, or several.
std::string digest_by_id(const std::vector<IndexEntry>& entries, std::string_view id) {
  std::string found;
  if (id.size() < 3 || !is_id_prefix(id)) return found;
  for (const IndexEntry& entry : entries) {
    if (!is_list(entry) || entry.manifest == found || !starts_with(hex_of(entry.manifest), id)) continue;
    if (!found.empty()) return "";
    found = entry.manifest;
  }
  return found;
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

std::optional<RemovedImage> remove_list_name(const Layout& layout, std::string_view name) {
  std::optional<RemovedImage> removed;
  edit_index(layout, [&](std::vector<IndexEntry>& entries) {
    std::string digest = digest_of(entries, name, is_list);
    if (digest.empty()) digest = digest_by_id(entries, name);
    if (digest.empty()) return;
    const ImageList list = assemble(entries, digest);
    removed = RemovedImage{take_away(entries, list, name), ""};
    if (removed->untagged.size() == list.names.size()) removed->deleted = hex_of(digest);
  });
  return removed;
}

std::vector<ImageRecord> lists_as_images(const Layout& layout) {
  std::vector<ImageRecord> rows;
  // The plain copy says whether there is one at all; a listing of images should not have to read JSON.
  const std::vector<IndexEntry> brief = read_entries(layout);
  if (std::none_of(brief.begin(), brief.end(), [](const IndexEntry& entry) { return entry.id.empty(); })) return rows;
  for (ImageList& list : all_lists(layout)) {
    ImageRecord row;
    row.id = hex_of(list.digest);
    row.digest = list.digest;
    row.names = std::move(list.names);
    struct stat info {};
    if (::stat(layout.blob(row.id).c_str(), &info) == 0) {
      row.size = static_cast<std::uint64_t>(info.st_size);
      row.created = format_rfc3339(std::chrono::system_clock::from_time_t(info.st_mtime));
    }
    rows.push_back(std::move(row));
  }
  return rows;
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
    gone = take_away(entries, *artifact, name);
  });
  return gone;
}

}  // namespace kelp::store
