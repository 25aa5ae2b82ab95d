#include "store/prune.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <random>
#include <set>
#include <utility>

#include "base/digest_name.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "store/blobs.h"
#include "store/containers.h"
#include "store/image_index.h"
#include "store/images.h"
#include "store/layers.h"
#include "store/record_json.h"
#include "sys/directory.h"
#include "sys/lock.h"
#include "sys/safe_path.h"
#include "sys/xattr_tree.h"

namespace kelp::store {

namespace {

constexpr time_t kStalePartial = 7 * 24 * 3600;
constexpr unsigned kMaxNesting = 4;

/// What must stay.
struct Marked {
  std::set<std::string> blobs;   ///< digests
  std::set<std::string> chains;  ///< hex
  std::set<std::string> manifests;
};

/// A manifest or an index and all below it. A blob that is missing or unreadable keeps what it can name: nothing.
void mark_document(const Layout& layout, const std::string& digest, unsigned depth, std::set<std::string>& blobs) {
  if (!blobs.insert(digest).second || depth > kMaxNesting) return;
  const auto name = DigestName::parse(digest);
  if (!name || name->algorithm() != "sha256" || !has_blob(layout, *name)) return;
  try {
    const std::string text = read_blob(layout, *name, spec::kMaxDocumentBytes);
    if (spec::is_index_document(text, "", digest)) {
      for (const spec::Descriptor& entry : spec::parse_index(text, digest).manifests) {
        mark_document(layout, entry.digest, depth + 1, blobs);
      }
      return;
    }
    const spec::ImageManifest manifest = spec::parse_manifest(text, digest);
    blobs.insert(manifest.config.digest);
    for (const spec::Descriptor& layer : manifest.layers) blobs.insert(layer.digest);
  } catch (const Error& error) {
    log::warn("{}", error.message());
  }
}

/// When a container was last made from the image (or its names were changed).
std::time_t last_use(const Layout& layout, const ImageRecord& image) {
  struct stat info {};
  const std::string path = layout.image_record(DigestName::require(image.digest).hex());
  return ::stat(path.c_str(), &info) == 0 ? info.st_mtime : 0;
}

Marked mark(const Layout& layout, std::optional<std::time_t> unused_since) {
  Marked marked;
  for (const IndexEntry& entry : read_full_entries(layout)) {
    marked.manifests.insert(entry.manifest);
    mark_document(layout, entry.manifest, 0, marked.blobs);
    // The index itself is kept, not the images of other platforms that it names.
    if (!entry.list.empty()) marked.blobs.insert(entry.list);
    if (const auto image = image_by_manifest(layout, entry.manifest)) {
      const bool unused = unused_since && last_use(layout, *image) < *unused_since;
      for (const ImageLayer& layer : image->layers) {
        if (!unused || !has_blob(layout, DigestName::require(layer.blob))) marked.chains.insert(layer.chain);
      }
    }
  }
  // Read as text, not through list(): a record of another machine that shares this store keeps its layers too.
  for (const std::string& id : sys::names_in(layout.containers(), true)) {
    if (!is_full_id(id)) continue;
    const std::string path = layout.container(id) + "/record.json";
    const auto text = sys::read_small_file(path, 16U << 20U);
    if (!text) continue;
    for (const std::string& chain : record_from_json(*text, path).layer_chain) marked.chains.insert(chain);
  }
  return marked;
}

std::uint64_t file_size(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 ? static_cast<std::uint64_t>(info.st_size) : 0;
}

void sweep_blobs(const Layout& layout, const Marked& marked, SweepResult& result) {
  for (const DigestName& blob : list_blobs(layout)) {
    if (marked.blobs.contains(blob.str())) continue;
    const std::string path = layout.blob(blob.hex());
    const std::uint64_t size = file_size(path);
    if (!move_to_trash(layout, path)) continue;
    result.blobs.push_back(blob.str());
    result.bytes += size;
  }
}

void sweep_layers(const Layout& layout, const Marked& marked, SweepResult& result) {
  for (const std::string& chain : sys::names_in(layout.layers(), true)) {
    if (!is_full_id(chain) || marked.chains.contains(chain)) continue;
    const std::string path = layout.layers() + "/" + chain;
    for (const std::string& key : sys::names_in(path, true)) {
      IdMapping map;
      map.key = key;
      if (const auto info = read_layer(layout, chain, map)) result.bytes += info->bytes;
      if (move_to_trash(layout, path + "/" + key)) result.layers.push_back(chain + "/" + key);
    }
    ::rmdir(path.c_str());
  }
  const std::string links = layout.layers() + "/l";
  for (const std::string& name : sys::names_in(links, true)) {
    const std::string link = links + "/" + name;
    if (::access(link.c_str(), F_OK) < 0 && errno == ENOENT) ::unlink(link.c_str());
  }
}

/// Directories of unpackers that were killed: their lock is free.
void sweep_temporary(const Layout& layout) {
  const sys::FileLock no_births = sys::FileLock::exclusive(layout.locks() + "/layers-tmp");
  for (const std::string& name : sys::names_in(layout.layers(), true)) {
    if (!starts_with(name, ".tmp-")) continue;
    const std::string path = layout.layers() + "/" + name;
    const Fd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory || ::flock(directory.get(), LOCK_EX | LOCK_NB) < 0) continue;
    move_to_trash(layout, path);
  }
}

void sweep_partial(const Layout& layout) {
  for (const std::string& name : sys::names_in(layout.partial_downloads(), true)) {
    const std::string path = layout.partial_downloads() + "/" + name;
    struct stat info {};
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file || ::fstat(file.get(), &info) < 0 || ::flock(file.get(), LOCK_EX | LOCK_NB) < 0) continue;
    // Without a digest for a name nobody can resume it.
    if (!is_full_id(name) || info.st_mtime + kStalePartial < ::time(nullptr)) ::unlink(path.c_str());
  }
}

}  // namespace

bool move_to_trash(const Layout& layout, const std::string& path) {
  std::random_device device;
  const std::string target = fmt::format("{}/{}-{:08x}{:08x}", layout.trash(),
                                         std::string_view(path).substr(path.rfind('/') + 1), device(), device());
  if (::rename(path.c_str(), target.c_str()) == 0) return true;
  if (errno == ENOENT && ::access(path.c_str(), F_OK) == 0) {
    sys::mkdirs(layout.trash(), 0700);
    if (::rename(path.c_str(), target.c_str()) == 0) return true;
  }
  if (errno == ENOENT) return false;
  throw_errno("move {} to the trash", path);
}

namespace {

/// The caller holds locks/gc exclusively.
SweepResult sweep_alone(const Layout& layout, std::optional<std::time_t> unused_since) {
  SweepResult result;
  const Marked marked = mark(layout, unused_since);
  sweep_blobs(layout, marked, result);
  sweep_layers(layout, marked, result);
  const auto lock = sys::FileLock::exclusive(layout.locks() + "/images");  // no writer of a record: drafts are dead
  for (const std::string& name : sys::names_in(layout.image_records(), true)) {
    if (ends_with(name, ".json.new")) ::unlink((layout.image_records() + "/" + name).c_str());
    if (name.size() != 64 + 5 || marked.manifests.contains("sha256:" + name.substr(0, 64))) continue;
    ::unlink((layout.image_records() + "/" + name).c_str());
  }
  sweep_partial(layout);
  return result;
}

}  // namespace

std::set<std::string> reached_blobs(const Layout& layout, const std::string& digest) {
  std::set<std::string> blobs;
  mark_document(layout, digest, 0, blobs);
  return blobs;
}

SweepResult sweep_images(const Layout& layout, std::optional<std::time_t> unused_since) {
  const sys::FileLock alone = sys::FileLock::exclusive(layout.locks() + "/gc");
  return sweep_alone(layout, unused_since);
}

std::optional<SweepResult> try_sweep_images(const Layout& layout) {
  const auto alone = sys::FileLock::try_exclusive(layout.locks() + "/gc");
  if (!alone) return std::nullopt;
  return sweep_alone(layout, std::nullopt);
}

void sweep_if_idle(const Layout& layout) noexcept {
  try {
    if (try_sweep_images(layout)) empty_trash(layout);
  } catch (const std::exception& error) {
    log::debug("sweep: {}", error.what());
  }
}

void empty_trash(const Layout& layout) {
  const auto lock = sys::FileLock::try_exclusive(layout.locks() + "/trash");
  if (!lock) return;
  sweep_temporary(layout);
  sweep_partial(layout);
  for (const std::string& name : sys::names_in(layout.trash(), true)) {
    // What a container has left at run time is found by its entry here, so that goes first: engine/remove.cc.
    if (is_full_id(name) && (::access(layout.run_of(name).c_str(), F_OK) == 0 ||
                             ::access((layout.runtime_root() + "/" + name).c_str(), F_OK) == 0))
      continue;
    const std::string path = layout.trash() + "/" + name;
    // A volume's maker holds its draft until it has its name elsewhere (volumes.cc).
    const Fd entry(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    std::optional<sys::FileLock> dead;
    if (entry && !(dead = sys::FileLock::try_exclusive_at(entry.get()))) continue;
    struct stat opened {
    }, now{};
    if (entry && (::fstat(entry.get(), &opened) < 0 || ::lstat(path.c_str(), &now) < 0 || opened.st_ino != now.st_ino))
      continue;
    try {
      sys::remove_tree(path);
    } catch (const Error& error) {
      log::debug("{}", error.message());  // files of subordinate ids: the next one inside S finishes it
    }
  }
}

}  // namespace kelp::store
