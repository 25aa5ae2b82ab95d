#include "image/verify.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <set>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "image/digest.h"
#include "image/fetch_layer.h"
#include "image/lone_trees.h"
#include "image/outgoing.h"
#include "image/push.h"
#include "image/tree_compare.h"
#include "image/unpack.h"
#include "image/verbs.h"
#include "image/workers.h"
#include "store/blobs.h"
#include "store/image_index.h"
#include "store/image_lists.h"
#include "store/images.h"
#include "store/prune.h"
#include "sys/directory.h"
#include "sys/lock.h"
#include "sys/xattr_tree.h"

namespace kelp::image {

namespace {

/// Hashes every blob, as many at once as there are cores; digests of those with other bytes.
std::set<std::string> damaged_blobs(const store::Layout& layout, const std::vector<DigestName>& blobs,
                                    Progress& progress) {
  progress.status(fmt::format("Checking {} blobs", blobs.size()));
  std::set<std::string> damaged;
  std::mutex mutex;
  run_parallel(blobs.size(), 0, [&](size_t i, const std::stop_token&) {
    try {
      const Fd file = store::open_blob(layout, blobs[i]);
      if (sha256_of_file(file.get()) == blobs[i]) return;
    } catch (const SysError& error) {
      log::debug("{}", error.message());
      if (error.code() == ENOENT) return;  // removed meanwhile; who needs it will say so
    }
    const std::scoped_lock lock(mutex);
    damaged.insert(blobs[i].str());  // or the disk cannot read it
  });
  return damaged;
}

/// A pulled artifact needs no record.
bool is_kept_artifact(const store::Layout& layout, const std::string& digest) {
  try {
    return store::find_artifact(layout, digest).has_value();
  } catch (const Error&) {  // the document is damaged or missing, which is told elsewhere
    return false;
  }
}

/// What `run` reads of an image is there and can be read.
bool has_record(const store::Layout& layout, const store::IndexEntry& entry) {
  try {
    return store::image_by_manifest(layout, entry.manifest).has_value() && !entry.id.empty();
  } catch (const Error& error) {
    log::debug("{}", error.message());
    return false;
  }
}

/// By another command since the index was read, with its record: no damage. Or it has come back meanwhile, whole.
bool was_removed(const store::Layout& layout, const store::IndexEntry& entry) {
  const sys::FileLock nobody_changes = sys::FileLock::exclusive(layout.locks() + "/images");
  const auto now = store::read_full_entries(layout);
  const bool named =
      std::any_of(now.begin(), now.end(), [&](const auto& other) { return other.manifest == entry.manifest; });
  return !named || has_record(layout, entry);
}

class Verifier {
 public:
  Verifier(const store::Layout& layout, Http& http, const RegistryPolicy& policy, const VerifyOptions& options,
           Progress& progress)
      : layout_(layout), http_(http), policy_(policy), options_(options), progress_(progress) {}

  StoreReport run() {
    check_blobs();
    for (const store::IndexEntry& entry : store::read_full_entries(layout_)) check_document(entry, entry.manifest, 0);
    check_records();
    if (options_.layers) check_layers();
    return std::move(report_);
  }

 private:
  StoreProblem& problem(const char* kind, const std::string& subject, std::string what) {
    report_.problems.push_back(
        {.kind = kind, .subject = subject, .what = std::move(what), .repaired = false, .why_not = ""});
    return report_.problems.back();
  }
  void check_blobs();
  void check_document(const store::IndexEntry& entry, const std::string& digest, unsigned depth);
  bool need_blob(const store::IndexEntry& entry, const std::string& digest, std::uint64_t size);
  bool fetch_again(const store::IndexEntry& entry, const DigestName& digest, std::uint64_t size, std::string& why_not);
  void check_records();
  void check_layers();
  void check_layer(const std::string& chain, const std::string& key);
  std::string compare_with_record(const std::string& chain, const store::LoneTree& lone);
  std::string compare_with_blob(const std::string& chain, const store::IdMapping& map, const store::ImageLayer& layer);

  const store::Layout& layout_;
  Http& http_;
  const RegistryPolicy& policy_;
  const VerifyOptions& options_;
  Progress& progress_;
  StoreReport report_;
  std::set<std::string> damaged_;                    ///< digests of blobs with other bytes
  std::set<std::string> needed_;                     ///< digests
  std::map<std::string, store::ImageLayer> layers_;  ///< chain → what it is made of
  std::map<std::string, store::IndexEntry> homes_;   ///< chain of a tree without a blob → an image that it belongs to
  std::set<std::string> told_;
  bool unreadable_ = false;  ///< a document could not be read: what it needs is not known
};

void Verifier::check_blobs() {
  const std::vector<DigestName> blobs = store::list_blobs(layout_);
  report_.blobs = blobs.size();
  for (const DigestName& blob : blobs) report_.bytes += store::blob_size(layout_, blob).value_or(0);
  damaged_ = damaged_blobs(layout_, blobs, progress_);
}

/// true when the blob is there and right, or has become so.
bool Verifier::need_blob(const store::IndexEntry& entry, const std::string& digest, std::uint64_t size) {
  needed_.insert(digest);
  const DigestName name = DigestName::require(digest);
  const auto there = store::blob_size(layout_, name);
  const bool bad = damaged_.contains(digest);
  if (there && !bad) return true;
  if (!told_.insert(digest).second) return false;
  StoreProblem& found = problem("blob", digest, bad ? "damaged: its content has another digest" : "missing");
  if (!options_.repair) return false;
  found.repaired = fetch_again(entry, name, size, found.why_not);
  if (found.repaired) damaged_.erase(digest);
  return found.repaired;
}

/// The blob from a registry that the image is known in. The bad one is put aside only when the good one is here.
bool Verifier::fetch_again(const store::IndexEntry& entry, const DigestName& digest, std::uint64_t size,
                           std::string& why_not) {
  std::vector<std::string> repositories = entry.repos;
  if (!entry.name.empty()) repositories.insert(repositories.begin(), spec::parse_image_name(entry.name).base());
  why_not = "the image comes from no registry";
  for (const std::string& repository : repositories) {
    spec::ImageName name = spec::parse_image_name(repository);
    if (name.registry == "localhost") continue;
    name.digest = entry.manifest;
    try {
      for (PullSource& source : policy_.sources(name)) {
        Registry registry(http_, std::move(source), options_.registry);
        std::string text;
        store::BlobWriter writer(layout_);
        Sha256 hash;
        if (digest.str() == entry.manifest) {
          const auto manifest = registry.manifest(digest.str());
          if (!manifest) throw_error("the registry no longer has it");
          writer.write(manifest->text);
          hash.update(manifest->text);
        } else {
          registry.manifest(entry.manifest);  // the first call settles how to talk
          registry.blob(digest, 0, size, [&](std::span<const std::byte> bytes) {
            writer.write(bytes.data(), bytes.size());
            hash.update(bytes.data(), bytes.size());
          });
        }
        if (hash.digest() != digest) throw_error("the registry sent other bytes");
        store::move_to_trash(layout_, layout_.blob(digest.hex()));
        writer.publish(digest);
        sys::sync_directory(layout_.blobs());  // no index entry comes that would see to it
        return true;
      }
    } catch (const Error& error) {
      why_not = error.message();
    }
  }
  return false;
}

void Verifier::check_document(const store::IndexEntry& entry, const std::string& digest, unsigned depth) {
  if (depth > 4) return;
  store::IndexEntry here = entry;
  here.manifest = digest;
  if (!need_blob(here, digest, spec::kMaxDocumentBytes)) {
    unreadable_ = true;
    return;
  }
  try {
    const std::string text = store::read_blob(layout_, DigestName::require(digest), spec::kMaxDocumentBytes);
    if (spec::is_index_document(text, depth == 0 ? entry.media_type : "", digest)) {
      for (const spec::Descriptor& child : spec::parse_index(text, digest).manifests) {
        check_document(entry, child.digest, depth + 1);
      }
      return;
    }
    ++report_.images;
    const spec::ImageManifest manifest = spec::parse_manifest(text, "manifest " + digest);
    const bool readable = need_blob(here, manifest.config.digest, manifest.config.size) ||
                          store::has_blob(layout_, DigestName::require(manifest.config.digest));
    if (!readable || spec::is_artifact(manifest)) {
      for (const spec::Descriptor& layer : manifest.layers) need_blob(here, layer.digest, layer.size);
      unreadable_ = unreadable_ || !readable;
      return;
    }
    const spec::ImageConfig config = spec::parse_image_config(
        store::read_blob(layout_, DigestName::require(manifest.config.digest), spec::kMaxImageConfigBytes),
        "config " + manifest.config.digest);
    if (config.diff_ids.size() != manifest.layers.size()) throw_error("its config names other layers");
    const std::vector<std::string> chains = chain_ids(config.diff_ids);
    for (size_t i = 0; i < chains.size(); ++i) {
      const spec::Descriptor& layer = manifest.layers[i];
      if (store::has_blob(layout_, DigestName::require(layer.digest)) || !store::read_lone_tree(layout_, chains[i])) {
        need_blob(here, layer.digest, layer.size);
      } else {
        homes_.emplace(chains[i], here);
      }
      layers_[chains[i]] = {config.diff_ids[i], chains[i], layer.digest, layer.size, layer.media_type};
    }
  } catch (const Error& error) {
    unreadable_ = true;
    problem("image", digest, error.message());
  }
}

/// What `run` and `images` read; it can always be made again from the documents.
void Verifier::check_records() {
  std::set<std::string> seen;
  for (const store::IndexEntry& entry : store::read_full_entries(layout_)) {
    if (spec::is_index_type(entry.media_type) || !seen.insert(entry.manifest).second) continue;
    if (has_record(layout_, entry) || (entry.id.empty() && is_kept_artifact(layout_, entry.manifest))) continue;
    if (was_removed(layout_, entry)) continue;
    StoreProblem& found = problem("record", entry.manifest, entry.name.empty() ? "missing" : "missing: " + entry.name);
    if (!options_.repair) continue;
    try {
      const std::string text = store::read_blob(layout_, DigestName::require(entry.manifest), spec::kMaxDocumentBytes);
      const spec::ImageManifest manifest = spec::parse_manifest(text, "manifest " + entry.manifest);
      const spec::ImageConfig config = spec::parse_image_config(
          store::read_blob(layout_, DigestName::require(manifest.config.digest), spec::kMaxImageConfigBytes),
          "config " + manifest.config.digest);
      ::unlink(layout_.image_record(DigestName::require(entry.manifest).hex()).c_str());
      store::NewImage image;
      image.manifest = {.media_type = manifest.media_type, .digest = entry.manifest, .size = text.size()};
      image.chains = chain_ids(config.diff_ids);
      image.repos = entry.repos;
      image.list_digest = entry.list;
      store::edit_index(layout_, [&](std::vector<store::IndexEntry>& entries) {
        for (store::IndexEntry& row : entries) {
          if (row.manifest == entry.manifest) row.id = std::string(DigestName::require(manifest.config.digest).hex());
        }
      });
      if (!entry.name.empty()) image.names = {entry.name};
      store::add_image(layout_, image);
      found.repaired = true;
    } catch (const Error& error) {
      found.why_not = error.message();
    }
  }
}

/// Unpacks the layer once more beside the store and compares. "" = equal.
std::string Verifier::compare_with_blob(const std::string& chain, const store::IdMapping& map,
                                        const store::ImageLayer& layer) {
  const std::string what = "layer " + layer.blob;
  const std::string path = layout_.layers() + "/.tmp-verify-" + std::to_string(::getpid());
  // Until it is locked, as LayerBuilder has it: a sweep would take it for a dead one's.
  std::optional<sys::FileLock> birth = sys::FileLock::shared(layout_.locks() + "/layers-tmp");
  if (::mkdir(path.c_str(), 0700) < 0) throw_errno("make {}", path);
  struct Remover {
    const std::string& path;
    ~Remover() {
      try {
        sys::remove_tree(path);
      } catch (const Error& error) {
        log::debug("{}", error.message());
      }
    }
  } remover{path};
  const Fd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || ::flock(directory.get(), LOCK_EX | LOCK_NB) < 0) throw_errno("lock {}", path);
  birth.reset();
  if (::mkdirat(directory.get(), "diff", 0755) < 0) throw_errno("make {}/diff", path);
  const Fd fresh(::openat(directory.get(), "diff", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fresh || ::fchmod(fresh.get(), 0755) < 0) throw_errno("open {}/diff", path);
  const Fd blob = store::open_blob(layout_, DigestName::require(layer.blob));
  FdSource source(blob.get(), what);
  const UnpackResult result =
      unpack_layer(source, what, fresh.get(), {.map = map, .owners_file = "", .whiteouts = true, .progress = {}});
  if (result.diff_id != layer.diff_id) return "its blob has another content";
  const Fd kept(::open((layout_.layer(chain, map.key) + "/diff").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!kept) return "its directory is missing";
  return first_difference(kept.get(), fresh.get());
}

/// A tree whose blob was given up has its digest only. "" = equal.
std::string Verifier::compare_with_record(const std::string& chain, const store::LoneTree& lone) {
  return tree_digest(layout_, chain, lone.map) == lone.digest ? "" : "its files are not those that it was made of";
}

void Verifier::check_layer(const std::string& chain, const std::string& key) {
  const std::string subject = chain + "/" + key;
  const auto known = layers_.find(chain);
  if (known == layers_.end()) {
    if (unreadable_) return;  // it may belong to an image whose documents are damaged
    report_.orphans.push_back("layer " + subject);
    return;
  }
  ++report_.layers;
  // Only the two usual maps can be made again here; others are made anew by the container that wants them.
  const bool usual = key == "full" || key == "single";
  store::IdMapping map = key == "single" ? store::IdMapping::single() : store::IdMapping::full();
  map.key = key;
  if (!store::layer_ready(layout_, chain, map)) return;  // not trusted: it is unpacked again when it is wanted
  const DigestName blob = DigestName::require(known->second.blob);
  const auto lone = store::has_blob(layout_, blob) ? std::nullopt : store::read_lone_tree(layout_, chain);
  const bool can_tell = lone ? lone->map.key == key : store::has_blob(layout_, blob);
  if (!usual || damaged_.contains(known->second.blob) || !can_tell) return;
  std::string difference;
  try {
    difference = lone ? compare_with_record(chain, *lone) : compare_with_blob(chain, map, known->second);
  } catch (const Error& error) {
    difference = error.message();
  }
  if (difference.empty()) return;
  StoreProblem& found = problem("layer", subject, difference);
  if (!options_.repair) return;
  if (const auto home = homes_.find(chain); lone && home != homes_.end()) {
    if (!fetch_again(home->second, blob, known->second.size, found.why_not)) return;
  }
  try {
    store::move_to_trash(layout_, layout_.layer(chain, key));
    ensure_layer(layout_, known->second, map);
    found.repaired = true;
  } catch (const Error& error) {
    found.why_not = error.message();
  }
}

void Verifier::check_layers() {
  for (const std::string& chain : sys::names_in(layout_.layers())) {
    if (!is_full_id(chain)) continue;
    for (const std::string& key : sys::names_in(layout_.layers() + "/" + chain)) {
      progress_.status(fmt::format("Checking layer {}", chain.substr(0, 12)));
      check_layer(chain, key);
    }
  }
  if (unreadable_) return;
  for (const DigestName& blob : store::list_blobs(layout_)) {
    if (needed_.contains(blob.str())) continue;
    report_.orphans.push_back("blob " + blob.str());
  }
}

}  // namespace

StoreReport verify_store(const store::Layout& layout, Http& http, const RegistryPolicy& policy,
                         const VerifyOptions& options, Progress& progress) {
  return Verifier(layout, http, policy, options, progress).run();
}

std::string verb_store_verify(VerbRequest& request) {
  request.arguments.need_positional(0, 0);
  const store::StoreUse use(request.layout);
  if (request.arguments.flag("blobs")) {
    const auto damaged = damaged_blobs(request.layout, store::list_blobs(request.layout), request.progress);
    return nlohmann::ordered_json{{"v", 1}, {"damaged", damaged}}.dump();
  }
  Http http(http_options(request.arguments));
  VerifyOptions options;
  options.repair = request.arguments.flag("repair");
  options.registry = registry_options(request.arguments);
  const StoreReport report = verify_store(request.layout, http, RegistryPolicy::load(), options, request.progress);
  nlohmann::ordered_json problems = nlohmann::ordered_json::array();
  for (const StoreProblem& found : report.problems) {
    problems.push_back({{"kind", found.kind},
                        {"subject", found.subject},
                        {"what", found.what},
                        {"repaired", found.repaired},
                        {"why_not", found.why_not}});
  }
  return nlohmann::ordered_json{{"v", 1},
                                {"problems", std::move(problems)},
                                {"orphans", report.orphans},
                                {"blobs", report.blobs},
                                {"layers", report.layers},
                                {"images", report.images},
                                {"bytes", report.bytes}}
      .dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace kelp::image
