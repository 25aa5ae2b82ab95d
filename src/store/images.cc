#include "store/images.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/digest_name.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "store/blobs.h"
#include "store/image_index.h"
#include "store/layers.h"
#include "sys/safe_path.h"

namespace kelp::store {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kMaxRecord = 16u << 20;

std::string hex_of(std::string_view digest) { return std::string(digest.substr(digest.find(':') + 1)); }

std::string base_of(const std::string& full_name) { return spec::parse_image_name(full_name).base(); }

bool contains(const std::vector<std::string>& list, const std::string& entry) {
  return std::find(list.begin(), list.end(), entry) != list.end();
}

void add_once(std::vector<std::string>& list, const std::string& entry) {
  if (!entry.empty() && !contains(list, entry)) list.push_back(entry);
}

std::string to_json(const ImageRecord& record) {
  ordered_json layers = ordered_json::array();
  for (const ImageLayer& layer : record.layers) {
    layers.push_back({{"diff_id", layer.diff_id},
                      {"chain", layer.chain},
                      {"blob", layer.blob},
                      {"size", layer.size},
                      {"media_type", layer.media_type}});
  }
  const ordered_json value = {{"schema", ImageRecord::kSchema},
                              {"id", record.id},
                              {"digest", record.digest},
                              {"created", record.created},
                              {"size", record.size},
                              {"author", record.author},
                              {"os", record.platform.os},
                              {"architecture", record.platform.architecture},
                              {"variant", record.platform.variant},
                              {"config", ordered_json::parse(spec::print_run_config(record.config))},
                              {"layers", std::move(layers)},
                              {"made_here", record.made_here}};
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

std::optional<ImageRecord> read_record(const Layout& layout, const std::string& manifest_digest) {
  const std::string path = layout.image_record(hex_of(manifest_digest));
  const auto text = sys::read_small_file(path, kMaxRecord);
  if (!text) return std::nullopt;
  try {
    const json value = json::parse(*text);
    if (value.at("schema").get<int>() > ImageRecord::kSchema) {
      throw_error("{}: written by a newer kelp (schema {})", path, value.at("schema").get<int>());
    }
    ImageRecord record;
    record.id = value.at("id").get<std::string>();
    record.digest = value.at("digest").get<std::string>();
    record.created = value.at("created").get<std::string>();
    record.size = value.at("size").get<std::uint64_t>();
    record.author = value.at("author").get<std::string>();
    record.platform = {.os = value.at("os").get<std::string>(),
                       .architecture = value.at("architecture").get<std::string>(),
                       .variant = value.at("variant").get<std::string>()};
    record.config = spec::parse_run_config(value.at("config").dump(), path);
    record.made_here = value.value("made_here", false);
    for (const json& layer : value.at("layers")) {
      record.layers.push_back({.diff_id = layer.at("diff_id").get<std::string>(),
                               .chain = layer.at("chain").get<std::string>(),
                               .blob = layer.at("blob").get<std::string>(),
                               .size = layer.at("size").get<std::uint64_t>(),
                               .media_type = layer.at("media_type").get<std::string>()});
    }
    return record;
  } catch (const json::exception& error) {
    throw_error("{}: damaged image record ({})", path, error.what());
  }
}

std::optional<ImageRecord> brief_record(const IndexEntry& entry) {
  ImageRecord record;
  record.id = entry.id;
  record.digest = entry.manifest;
  record.created = entry.summary->created;
  record.size = entry.summary->size;
  record.platform = entry.summary->platform;
  return record;
}

/// The names and repositories of every entry of the same image.
void take_names(ImageRecord& record, const std::vector<IndexEntry>& entries) {
  for (const IndexEntry& entry : entries) {
    if (entry.id != record.id) continue;
    add_once(record.names, entry.name);
    for (const std::string& repo : entry.repos) add_once(record.repos, repo);
    record.former = entry.former;
    if (!entry.name.empty()) add_once(record.repos, base_of(entry.name));
    if (entry.manifest == record.digest && record.list_digest.empty()) record.list_digest = entry.list;
  }
}

/// The record of one entry, with the names and repositories of every entry of the same image.
std::optional<ImageRecord> assemble(const Layout& layout, const std::vector<IndexEntry>& entries,
                                    const IndexEntry& chosen) {
  auto record = read_record(layout, chosen.manifest);
  if (!record) {
    // Another tool wrote this entry: its chain ids are not known here.
    log::debug("image {}: no record, put there by another tool", chosen.manifest);
    return std::nullopt;
  }
  take_names(*record, entries);
  return record;
}

const IndexEntry* find_by_name(const std::vector<IndexEntry>& entries, std::string_view text) {
  for (const spec::ImageName& candidate : spec::local_candidates(text)) {
    const std::string base = candidate.base();
    const std::string full = candidate.full();
    for (const IndexEntry& entry : entries) {
      if (candidate.digest.empty()) {
        if (entry.name == full) return &entry;
        continue;
      }
      if (entry.manifest != candidate.digest && entry.list != candidate.digest) continue;
      if (contains(entry.repos, base) || (!entry.name.empty() && base_of(entry.name) == base)) return &entry;
    }
  }
  return nullptr;
}

const IndexEntry* find_by_id(const std::vector<IndexEntry>& entries, std::string_view text) {
  constexpr std::string_view kAlgorithm = "sha256:";
  const bool digest = starts_with(text, kAlgorithm);
  const std::string_view hex = digest ? text.substr(kAlgorithm.size()) : text;
  if (!is_id_prefix(hex)) return nullptr;
  const IndexEntry* found = nullptr;
  for (const IndexEntry& entry : entries) {
    if (digest && (entry.manifest == text || entry.list == text)) return &entry;
    if (!starts_with(entry.id, hex)) continue;
    if (found != nullptr && found->id != entry.id) {
      throw_usage("image id {} is ambiguous: it fits {} and {}", kelp::quoted(text), found->id.substr(0, 12),
                  entry.id.substr(0, 12));
    }
    if (found == nullptr) found = &entry;
  }
  return found;
}

const IndexEntry* find_entry(const std::vector<IndexEntry>& entries, std::string_view text) {
  const IndexEntry* entry = find_by_name(entries, text);
  return entry != nullptr ? entry : find_by_id(entries, text);
}

[[noreturn]] void throw_unknown(const std::vector<IndexEntry>& entries, std::string_view text) {
  std::vector<std::string> known;
  for (const IndexEntry& entry : entries) {
    if (entry.name.empty()) continue;
    const spec::ImageName name = spec::parse_image_name(entry.name);
    known.push_back(spec::familiar(name));
    if (name.tag == "latest") known.push_back(known.back().substr(0, known.back().rfind(':')));
  }
  UsageError error(fmt::format("{}: image not known", printable(text)));
  if (const std::string near = nearest(text, known); !near.empty()) error.with_hint("did you mean " + near + "?");
  throw error;
}

std::uint64_t image_size(const Layout& layout, const NewImage& image, const spec::ImageManifest& manifest) {
  std::uint64_t size = image.unpacked_size;
  if (size == 0) {
    for (size_t i = 0; i < manifest.layers.size(); ++i) {
      size += layer_size(layout, image.chains[i]).value_or(manifest.layers[i].size);
    }
  }
  return size + manifest.config.size;
}

}  // namespace

std::vector<std::string> ImageRecord::chains() const {
  std::vector<std::string> result;
  result.reserve(layers.size());
  for (const ImageLayer& layer : layers) result.push_back(layer.chain);
  return result;
}

std::vector<std::string> ImageRecord::repo_digests() const {
  std::vector<std::string> result;
  for (const std::string& repo : repos) {
    result.push_back(repo + "@" + digest);
    if (!list_digest.empty() && list_digest != digest) result.push_back(repo + "@" + list_digest);
  }
  return result;
}

std::optional<ImageRecord> find_image(const Layout& layout, std::string_view name_or_id) {
  const std::vector<IndexEntry> entries = read_entries(layout);
  const IndexEntry* entry = find_entry(entries, name_or_id);
  if (entry == nullptr) return std::nullopt;
  return assemble(layout, entries, *entry);
}

ImageRecord require_image(const Layout& layout, std::string_view name_or_id) {
  if (auto record = find_image(layout, name_or_id)) return std::move(*record);
  throw_unknown(read_entries(layout), name_or_id);
}

std::optional<ImageRecord> image_by_manifest(const Layout& layout, std::string_view manifest_digest) {
  const std::vector<IndexEntry> entries = read_entries(layout);
  for (const IndexEntry& entry : entries) {
    if (entry.manifest == manifest_digest) return assemble(layout, entries, entry);
  }
  return std::nullopt;
}

std::vector<ImageRecord> list_images(const Layout& layout, bool brief) {
  std::vector<IndexEntry> entries = read_entries(layout);
  std::vector<ImageRecord> records;
  records.reserve(entries.size());
  std::map<std::string_view, size_t> by_id;
  for (IndexEntry& entry : entries) {
    if (entry.id.empty()) continue;
    auto found = by_id.find(entry.id);
    if (found == by_id.end()) {
      auto fresh = brief && entry.summary ? brief_record(entry) : read_record(layout, entry.manifest);
      if (!fresh) continue;
      found = by_id.emplace(entry.id, records.size()).first;
      records.push_back(std::move(*fresh));
    }
    ImageRecord& record = records[found->second];
    add_once(record.names, entry.name);
    for (const std::string& repo : entry.repos) add_once(record.repos, repo);
    record.former = std::move(entry.former);
    if (!entry.name.empty() && !brief) add_once(record.repos, base_of(entry.name));
    if (entry.manifest == record.digest && record.list_digest.empty()) record.list_digest = entry.list;
  }
  // RFC 3339 in UTC sorts as text; equal times keep the order of ids. A record is large: each is moved once, in place.
  std::vector<size_t> order;
  order.reserve(records.size());
  for (const auto& [id, index] : by_id) order.push_back(index);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return records[a].created > records[b].created; });
  for (size_t i = 0; i < order.size(); ++i) {
    if (order[i] == i) continue;
    ImageRecord first = std::move(records[i]);
    size_t hole = i;
    while (order[hole] != i) {
      records[hole] = std::move(records[order[hole]]);
      hole = std::exchange(order[hole], hole);
    }
    records[hole] = std::move(first);
    order[hole] = hole;
  }
  return records;
}

std::vector<std::string> name_history(const ImageRecord& image) {
  std::vector<std::string> names = image.names;
  names.insert(names.end(), image.former.begin(), image.former.end());
  return names;
}

std::vector<std::string> list_image_names(const Layout& layout) {
  std::vector<std::string> result;
  for (const IndexEntry& entry : read_entries(layout)) add_once(result, entry.name);
  std::sort(result.begin(), result.end());
  return result;
}

void note_use(const Layout& layout, const ImageRecord& image) noexcept {
  ::utimensat(AT_FDCWD, layout.image_record(hex_of(image.digest)).c_str(), nullptr, 0);
}

std::string read_image_config_text(const Layout& layout, const ImageRecord& image) {
  return read_blob(layout, DigestName::sha256_hex(image.id), spec::kMaxImageConfigBytes);
}

spec::ImageConfig read_image_config(const Layout& layout, const ImageRecord& image) {
  return spec::parse_image_config(read_image_config_text(layout, image), "image config " + image.id);
}

ImageRecord add_image(const Layout& layout, const NewImage& image) {
  const DigestName digest = DigestName::require(image.manifest.digest);
  const std::string what = "manifest " + digest.str();
  const spec::ImageManifest manifest = spec::parse_manifest(read_blob(layout, digest, spec::kMaxDocumentBytes), what);
  const DigestName config_digest = DigestName::require(manifest.config.digest);
  const spec::ImageConfig config = spec::parse_image_config(
      read_blob(layout, config_digest, spec::kMaxImageConfigBytes), "image config " + config_digest.str());
  if (config.diff_ids.size() != manifest.layers.size()) {
    throw_error("{}: {} layers, but the image config names {}", what, manifest.layers.size(), config.diff_ids.size());
  }
  if (image.chains.size() != manifest.layers.size()) {
    throw_error("{}: {} chain ids for {} layers", what, image.chains.size(), manifest.layers.size());
  }
  ImageRecord record;
  record.id = std::string(config_digest.hex());
  record.digest = digest.str();
  record.created = config.created;
  record.author = config.author;
  record.platform = config.platform;
  record.config = config.config;
  for (size_t i = 0; i < manifest.layers.size(); ++i) {
    record.layers.push_back({.diff_id = config.diff_ids[i],
                             .chain = image.chains[i],
                             .blob = manifest.layers[i].digest,
                             .size = manifest.layers[i].size,
                             .media_type = manifest.layers[i].media_type});
  }
  record.size = image_size(layout, image, manifest);
  record.made_here = image.made_here;
  const auto edit = [&](std::vector<IndexEntry>& entries) {
    IndexEntry fresh{.manifest = digest.str(),
                     .media_type = image.manifest.media_type.empty() ? manifest.media_type : image.manifest.media_type,
                     .size = image.manifest.size,
                     .id = record.id,
                     .list = image.list_digest,
                     .repos = image.repos,
                     .platform = config.platform,
                     .other = {},
                     .summary = ImageSummary{record.created, record.size, record.platform}};
    for (IndexEntry& entry : entries) {
      if (entry.manifest == fresh.manifest) entry.summary = fresh.summary;
    }
    if (image.names.empty()) {
      const bool known = std::any_of(entries.begin(), entries.end(),
                                     [&](const IndexEntry& entry) { return entry.manifest == fresh.manifest; });
      if (!known) entries.push_back(fresh);
      for (IndexEntry& entry : entries) {
        if (entry.manifest != fresh.manifest) continue;
        for (const std::string& repo : image.repos) add_once(entry.repos, repo);
        if (entry.list.empty()) entry.list = image.list_digest;
      }
    }
    for (const std::string& name : image.names) {
      fresh.name = name;
      place_name(entries, fresh);
    }
    take_names(record, entries);  // now: another command may remove the image as soon as the lock is free
  };
  const std::string text = to_json(record);
  edit_index(layout, edit, {{layout.image_record(digest.hex()), text, 0600}});
  return record;
}

void tag_image(const Layout& layout, const ImageRecord& image, const std::string& name) {
  edit_index(layout, [&](std::vector<IndexEntry>& entries) {
    for (const IndexEntry& entry : entries) {
      if (entry.manifest != image.digest) continue;
      IndexEntry fresh = entry;
      fresh.name = name;
      place_name(entries, fresh);
      return;
    }
    throw_usage("{}: the image was removed meanwhile", image.id.substr(0, 12));
  });
}

void untag_image(const Layout& layout, const ImageRecord& image, const std::vector<std::string>& names) {
  edit_index(layout, [&](std::vector<IndexEntry>& entries) {
    std::vector<std::string> wanted = names;
    if (wanted.empty()) {
      for (const IndexEntry& entry : entries) {
        if (entry.id == image.id) add_once(wanted, entry.name);
      }
    }
    for (const std::string& name : wanted) {
      const bool has = std::any_of(entries.begin(), entries.end(),
                                   [&](const IndexEntry& entry) { return entry.id == image.id && entry.name == name; });
      if (!has) throw_usage("{}: image {} has no such name", name, image.id.substr(0, 12));
      take_name(entries, name);
    }
  });
}

std::optional<RemovedImage> remove_image(const Layout& layout, std::string_view name_or_id, bool force,
                                         const std::vector<std::string>& in_use) {
  std::optional<RemovedImage> result;
  edit_index(layout, [&](std::vector<IndexEntry>& entries) {
    const IndexEntry* named = find_by_name(entries, name_or_id);
    const IndexEntry* entry = named != nullptr ? named : find_by_id(entries, name_or_id);
    if (entry == nullptr) return;
    const IndexEntry chosen = *entry;
    std::vector<std::string> names;
    for (const IndexEntry& other : entries) {
      if (other.id == chosen.id && other.manifest == chosen.manifest) add_once(names, other.name);
      if (other.id == chosen.id && !chosen.id.empty()) add_once(names, other.name);
    }
    if (named != nullptr && !chosen.name.empty() && names.size() > 1) {
      result = RemovedImage{.untagged = {chosen.name}, .deleted = ""};
      take_name(entries, chosen.name);
      return;
    }
    if (named == nullptr && names.size() > 1 && !force) {
      throw UsageError(fmt::format("unable to delete image {} by ID with more than one tag ({}): please force removal",
                                   kelp::quoted(chosen.id), join(names, " ")));
    }
    if (contains(in_use, chosen.id)) {
      UsageError error(fmt::format("image {} is in use by a container", chosen.id), 2);
      error.with_hint("remove the container first, or use --force");
      throw error;
    }
    result = RemovedImage{.untagged = names, .deleted = chosen.id};
    std::erase_if(entries, [&](const IndexEntry& other) {
      return other.manifest == chosen.manifest || (!chosen.id.empty() && other.id == chosen.id);
    });
  });
  return result;
}

}  // namespace kelp::store
