#include "store/image_index.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/digest_name.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "spec/image_name.h"
#include "sys/lock.h"
#include "sys/safe_path.h"

namespace kelp::store {

namespace {

constexpr const char* kRefName = "org.opencontainers.image.ref.name";
constexpr const char* kImageId = "io.github.kelp.image-id";
constexpr const char* kList = "io.github.kelp.index-digest";
constexpr const char* kRepos = "io.github.kelp.repositories";
constexpr const char* kFormer = "io.github.kelp.former-names";
constexpr std::string_view kCopyMagic = "kelp image names 3 ";
constexpr std::string_view kCopyWords = kCopyMagic.substr(0, kCopyMagic.size() - 2);  // before the version
constexpr int kCopyVersion = kCopyMagic[kCopyWords.size()] - '0';
constexpr size_t kMaxFormer = 32;  ///< a name that a build gives again and again would fill the index
constexpr size_t kMaxIndex = 64U << 20U;
const std::string kOciLayout = "{\"imageLayoutVersion\":\"1.0.0\"}";

std::string copy_path(const Layout& layout) { return layout.image_records() + "/names"; }

/// First line of the copy: which index.json it was made from. "" when there is none.
std::string stamp_of(const Layout& layout) {
  struct stat info {};
  if (::stat(layout.index().c_str(), &info) < 0) {
    if (errno == ENOENT) return {};
    throw_errno("inspect {}", layout.index());
  }
  return fmt::format("{}{} {} {}.{:09}", kCopyMagic, info.st_ino, info.st_size, info.st_mtim.tv_sec,
                     info.st_mtim.tv_nsec);
}

/// The copy of a newer kelp is left alone: that one makes it anew when it no longer fits the index.
bool newer_copy(const Layout& layout) {
  const auto copy = sys::read_small_file(copy_path(layout), kMaxIndex);
  if (!copy || !starts_with(*copy, kCopyWords)) return false;
  const std::string_view rest = std::string_view(*copy).substr(kCopyWords.size());
  return to_int(rest.substr(0, rest.find(' ')), 0).value_or(0) > kCopyVersion;
}

/// Another major version of the layout may mean anything by its index.
void check_layout_version(const Layout& layout) {
  const auto text = sys::read_small_file(layout.oci_layout());
  if (!text) return;  // written again with the next change
  const auto json = nlohmann::json::parse(*text, nullptr, false);
  const auto version = json.is_object() ? json.find("imageLayoutVersion") : json.end();
  if (!json.is_object() || version == json.end() || !version->is_string())
    throw_error("{}: no image layout version (damaged)", layout.oci_layout());
  const auto& found = version->get_ref<const std::string&>();
  if (!starts_with(found, "1."))
    throw_error("{}: version {} of the image layout is newer than this kelp, which knows 1.0.0", layout.oci_layout(),
                kelp::quoted(found));
}

/// One word of the copy's lines.
bool is_word(std::string_view text) {
  return text != "-" && std::none_of(text.begin(), text.end(), [](char c) { return c == ' ' || c == '\n'; });
}

std::string dash(const std::string& text) { return text.empty() ? "-" : text; }
std::string undash(std::string_view text) { return text == "-" ? std::string() : std::string(text); }

std::string print_summary(const std::optional<ImageSummary>& summary) {
  // A foreign configuration may hold anything.
  if (!summary || !is_word(summary->created) || !is_word(summary->platform.os) ||
      !is_word(summary->platform.architecture) || !is_word(summary->platform.variant)) {
    return "- - - - -";
  }
  return fmt::format("{} {} {} {} {}", summary->size, dash(summary->created), dash(summary->platform.os),
                     dash(summary->platform.architecture), dash(summary->platform.variant));
}

/// Names, digests and repositories hold neither blanks nor newlines, and no name is "-".
std::string print_copy(const std::string& stamp, const std::vector<IndexEntry>& entries) {
  std::string text = stamp + "\n";
  for (const IndexEntry& entry : entries) {
    text += fmt::format("{} {} {} {} {} {} {}\n", entry.manifest, dash(entry.id), dash(entry.list), dash(entry.name),
                        dash(join(entry.repos, ",")), dash(join(entry.former, ",")), print_summary(entry.summary));
  }
  return text + "end\n";
}

std::string first_line(std::string_view text) { return std::string(text.substr(0, text.find('\n'))); }

/// nullopt: torn, or of another index.json.
std::optional<std::vector<IndexEntry>> parse_copy(std::string_view text, const std::string& stamp) {
  if (!starts_with(text, stamp + "\n") || !ends_with(text, "\nend\n")) return std::nullopt;
  std::vector<IndexEntry> result;
  text.remove_prefix(stamp.size() + 1);
  result.reserve(static_cast<size_t>(std::count(text.begin(), text.end(), '\n')));
  while (text != "end\n") {
    const size_t newline = text.find('\n');
    if (newline == std::string_view::npos) return std::nullopt;
    const std::vector<std::string> fields = split(text.substr(0, newline), ' ');
    if (fields.size() != 11) return std::nullopt;
    IndexEntry entry;
    entry.manifest = fields[0];
    entry.id = undash(fields[1]);
    entry.list = undash(fields[2]);
    entry.name = undash(fields[3]);
    if (fields[4] != "-") entry.repos = split(fields[4], ',');
    if (fields[5] != "-") entry.former = split(fields[5], ',');
    if (const auto size = to_int(fields[6], 0)) {
      entry.summary = {
          .created = undash(fields[7]),
          .size = static_cast<std::uint64_t>(*size),
          .platform = {.os = undash(fields[8]), .architecture = undash(fields[9]), .variant = undash(fields[10])}};
    }
    result.push_back(std::move(entry));
    text.remove_prefix(newline + 1);
  }
  return result;
}

/// Another tool may have put anything into the annotation: only what we would have written ourselves is a name.
std::string checked_name(const std::string& text) {
  try {
    const spec::ImageName name = spec::parse_image_name(text);
    return name.tag.empty() || name.full() != text ? std::string() : text;
  } catch (const UsageError&) {
    return {};
  }
}

IndexEntry from_descriptor(const spec::Descriptor& descriptor) {
  IndexEntry entry{.manifest = descriptor.digest, .media_type = descriptor.media_type, .size = descriptor.size};
  if (descriptor.platform) entry.platform = *descriptor.platform;
  for (const auto& [key, value] : descriptor.annotations) {
    if (key == kRefName && !checked_name(value).empty()) {
      entry.name = value;
    } else if (key == kImageId && is_full_id(value)) {
      entry.id = value;
    } else if (key == kList && DigestName::parse(value)) {
      entry.list = value;
    } else if (key == kRepos && value.find_first_of(" \n") == std::string::npos) {
      entry.repos = split(value, ',');
    } else if (key == kFormer && value.find_first_of(" \n") == std::string::npos) {
      entry.former = split(value, ',');
      std::erase_if(entry.former, [](const std::string& name) { return checked_name(name).empty(); });
    } else {
      entry.other[key] = value;
    }
  }
  return entry;
}

spec::Descriptor to_descriptor(const IndexEntry& entry) {
  spec::Descriptor descriptor{.media_type = entry.media_type, .digest = entry.manifest, .size = entry.size};
  descriptor.annotations = entry.other;
  if (!entry.name.empty()) descriptor.annotations[kRefName] = entry.name;
  if (!entry.id.empty()) descriptor.annotations[kImageId] = entry.id;
  if (!entry.list.empty()) descriptor.annotations[kList] = entry.list;
  if (!entry.repos.empty()) descriptor.annotations[kRepos] = join(entry.repos, ",");
  if (!entry.former.empty()) descriptor.annotations[kFormer] = join(entry.former, ",");
  if (!entry.platform.os.empty()) descriptor.platform = entry.platform;
  return descriptor;
}

}  // namespace

namespace {

/// Space that is set aside while there is some, so that the index can be written when the disk is full. It stands with
/// the locks, since it is no content of the store.
constexpr off_t kReserve = 256 << 10;
std::string reserve_path(const Layout& layout) { return layout.locks() + "/reserve"; }

bool give_up_reserve(const Layout& layout) { return ::unlink(reserve_path(layout).c_str()) == 0; }

void keep_reserve(const Layout& layout) {
  if (::access(reserve_path(layout).c_str(), F_OK) == 0) return;
  const Fd file(::open(reserve_path(layout).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  // No room for it now: the next change of the index tries again.
  if (file && ::posix_fallocate(file.get(), 0, kReserve) != 0) ::unlink(reserve_path(layout).c_str());
}

/// From the copy as it is, also when another tool has changed the index since: a manifest's image stays what it is.
void keep_summaries(const Layout& layout, std::vector<IndexEntry>& entries) {
  const auto copy = sys::read_small_file(copy_path(layout), kMaxIndex);
  if (!copy || !starts_with(*copy, kCopyMagic)) return;
  const auto old = parse_copy(*copy, first_line(*copy));
  if (!old) return;
  std::map<std::string_view, const ImageSummary*> known;
  for (const IndexEntry& entry : *old) {
    if (entry.summary) known[entry.manifest] = &*entry.summary;
  }
  for (IndexEntry& entry : entries) {
    if (const auto found = known.find(entry.manifest); found != known.end()) entry.summary = *found->second;
  }
}

/// What the rows of one image share: its id, or the manifest of what is no image.
const std::string& image_key(const IndexEntry& entry) { return entry.id.empty() ? entry.manifest : entry.id; }

/// Names that an image had before a change and has no more.
void note_former_names(const std::vector<IndexEntry>& before, std::vector<IndexEntry>& now) {
  std::map<std::string, std::vector<std::string>> known;
  const auto add = [&](const IndexEntry& entry, const std::string& name) {
    std::vector<std::string>& names = known[image_key(entry)];
    if (!name.empty() && std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  };
  for (const auto* entries : {&before, &std::as_const(now)}) {
    for (const IndexEntry& entry : *entries)
      for (const std::string& name : entry.former) add(entry, name);
  }
  for (const IndexEntry& entry : before) add(entry, entry.name);
  for (const IndexEntry& entry : now) std::erase(known[image_key(entry)], entry.name);
  for (IndexEntry& entry : now) {
    std::vector<std::string>& names = known[image_key(entry)];
    if (names.size() > kMaxFormer) names.erase(names.begin(), names.end() - kMaxFormer);
    entry.former = names;
  }
}

/// Records of manifests that no row names any more: derived data, so a kill before this does no harm. Not later than
/// under the lock of the index, or it would take the record of an image that comes back meanwhile.
void drop_records(const Layout& layout, const std::vector<IndexEntry>& before, const std::vector<IndexEntry>& now) {
  std::set<std::string_view> kept;
  for (const IndexEntry& entry : now) kept.insert(entry.manifest);
  for (const IndexEntry& entry : before) {
    if (kept.contains(entry.manifest)) continue;
    ::unlink(layout.image_record(DigestName::require(entry.manifest).hex()).c_str());
  }
}

}  // namespace

std::vector<IndexEntry> read_full_entries(const Layout& layout) {
  check_layout_version(layout);
  const auto text = sys::read_small_file(layout.index(), kMaxIndex);
  std::vector<IndexEntry> result;
  if (!text) return result;
  for (const spec::Descriptor& descriptor : spec::parse_index(*text, layout.index()).manifests) {
    result.push_back(from_descriptor(descriptor));
  }
  return result;
}

std::vector<IndexEntry> read_entries(const Layout& layout) {
  const auto copy = sys::read_small_file(copy_path(layout), kMaxIndex);
  if (copy) {
    if (const std::string stamp = stamp_of(layout); !stamp.empty()) {
      if (auto entries = parse_copy(*copy, stamp)) return std::move(*entries);
    }
  }
  return read_full_entries(layout);
}

void edit_index(const Layout& layout, const std::function<void(std::vector<IndexEntry>&)>& edit,
                const std::vector<sys::NewContent>& records) {
  const sys::FileLock lock = sys::FileLock::exclusive(layout.locks() + "/images");
  for (const std::string& path : {layout.index(), copy_path(layout)})
    ::unlink(sys::locked_draft(path).c_str());  // of a killed process: ours comes only where something changes
  std::vector<IndexEntry> entries = read_full_entries(layout);
  keep_summaries(layout, entries);
  const auto print = [&] {
    spec::ImageIndex index;
    for (const IndexEntry& entry : entries) index.manifests.push_back(to_descriptor(entry));
    return spec::print_index(index);
  };
  const std::string before = print();
  const std::vector<IndexEntry> old = entries;
  edit(entries);
  note_former_names(old, entries);
  const std::string after = print();
  const auto publish = [&] {
    sys::mkdirs(layout.image_records(), 0700);
    std::vector<sys::NewContent> files = records;
    if (stamp_of(layout).empty() || after != before) {
      if (!sys::read_small_file(layout.oci_layout())) files.push_back({layout.oci_layout(), kOciLayout, 0644});
      files.push_back({layout.index(), after, 0644});
    }
    if (!files.empty()) sys::replace_locked_files(files, {layout.blobs()});
    if (!newer_copy(layout)) sys::replace_locked_file(copy_path(layout), print_copy(stamp_of(layout), entries));
    drop_records(layout, old, entries);
  };
  try {
    publish();
  } catch (const SysError& error) {
    // Removing an image must work on a full disk.
    if ((error.code() != ENOSPC && error.code() != EDQUOT) || !give_up_reserve(layout)) throw;
    publish();
  }
  keep_reserve(layout);
}

void take_name(std::vector<IndexEntry>& entries, const std::string& name) {
  for (auto entry = entries.begin(); entry != entries.end(); ++entry) {
    if (entry->name != name) continue;
    const bool other_row = std::any_of(entries.begin(), entries.end(), [&](const IndexEntry& other) {
      return &other != &*entry && other.manifest == entry->manifest;
    });
    if (other_row) {
      entries.erase(entry);
    } else {
      entry->name.clear();
    }
    return;
  }
}

void place_name(std::vector<IndexEntry>& entries, const IndexEntry& fresh) {
  const auto merge = [&](IndexEntry& into) {
    into.name = fresh.name;
    if (!fresh.list.empty()) into.list = fresh.list;
    if (fresh.summary) into.summary = fresh.summary;
    for (const std::string& repo : fresh.repos) {
      if (std::find(into.repos.begin(), into.repos.end(), repo) == into.repos.end()) into.repos.push_back(repo);
    }
  };
  for (IndexEntry& entry : entries) {
    if (entry.name == fresh.name && entry.manifest == fresh.manifest) return merge(entry);
  }
  if (!fresh.name.empty()) take_name(entries, fresh.name);
  for (IndexEntry& entry : entries) {
    if (entry.name.empty() && entry.manifest == fresh.manifest) return merge(entry);
  }
  entries.push_back(fresh);
}

}  // namespace kelp::store
