#include "image/pull.h"

#include <future>
#include <memory>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "image/digest.h"
#include "image/fetch_layer.h"
#include "image/outgoing.h"
#include "image/push.h"
#include "image/signature_policy.h"
#include "image/take_over.h"
#include "image/verbs.h"
#include "store/blobs.h"
#include "store/image_lists.h"

namespace kelp::image {

namespace {

/// A manifest or index that was found, and the registry (or mirror) that had it.
struct Found {
  spec::ImageName name;
  std::unique_ptr<Registry> registry;
  FetchedManifest top;
  std::string list_digest;  ///< of the index that top was chosen from, "" = none
};

/// The documents of one image, checked against each other.
struct ResolvedImage {
  FetchedManifest manifest;
  spec::ImageManifest parsed;
  std::string config_text;
  spec::ImageConfig config;
  std::vector<store::ImageLayer> layers;
};

class Puller {
 public:
  Puller(const store::Layout& layout, const store::IdMapping& map, Http& http, const RegistryPolicy& policy,
         const PullRequest& request, Progress& progress)
      : layout_(layout), map_(map), http_(http), policy_(policy), request_(request), progress_(progress) {}

  PullResult run();
  std::vector<spec::Descriptor> fetch_entries(bool all);
  std::string document() { return find_manifest(policy_.resolve(request_.name)).top.text; }

 private:
  void fetch(Found& found, const ResolvedImage& image);
  void pull_one(const std::vector<spec::ImageName>& candidates);
  void pull_all_tags(const std::vector<spec::ImageName>& candidates);
  Found find_manifest(const std::vector<spec::ImageName>& candidates);
  ResolvedImage resolve(const Found& found);
  bool fetch_artifact(Found& found);
  bool pull_artifact(Found& found);
  void choose_manifest(Found& found);
  std::string read_config(Registry& registry, const spec::Descriptor& config);
  struct Draft {
    DigestName digest;
    store::BlobWriter writer;
  };
  std::vector<Draft> draft_documents(const ResolvedImage& image);
  static void publish_documents(std::vector<Draft> drafts);
  store::ImageRecord publish(const Found& found, const ResolvedImage& image);
  [[nodiscard]] std::uint64_t unpacked_size(const std::vector<store::ImageLayer>& layers) const;

  const store::Layout& layout_;
  const store::IdMapping& map_;
  Http& http_;
  const RegistryPolicy& policy_;
  const PullRequest& request_;
  Progress& progress_;
  const SignaturePolicy signatures_ = SignaturePolicy::load();
  PullResult result_;
};

PullResult Puller::run() {
  const std::vector<spec::ImageName> candidates = policy_.resolve(request_.name);
  const store::StoreUse use(layout_);  // no prune between the first blob and the index entry
  if (request_.all_tags) {
    pull_all_tags(candidates);
  } else {
    pull_one(candidates);
  }
  return std::move(result_);
}

void Puller::pull_one(const std::vector<spec::ImageName>& candidates) {
  if (request_.policy == "missing") {
    for (const spec::ImageName& name : candidates) {
      if (auto image = store::find_image(layout_, name.full())) {
        result_.names.push_back(name.full());
        result_.images.push_back(std::move(*image));
        return;
      }
    }
  }
  Found found = find_manifest(candidates);
  const std::string full = found.name.full();
  try {
    if (request_.policy == "newer") {
      const auto local = store::find_image(layout_, full);
      if (local && (local->digest == found.top.digest.str() || local->list_digest == found.top.digest.str())) {
        result_.names.push_back(full);
        result_.images.push_back(*local);
        return;
      }
    }
    choose_manifest(found);
    if (pull_artifact(found)) return;
    const ResolvedImage image = resolve(found);
    // The documents are synced to the disk while the layers come, and published when those are there.
    auto drafts = std::async(std::launch::async, [&] { return draft_documents(image); });
    fetch(found, image);
    publish_documents(drafts.get());
    result_.images.push_back(publish(found, image));
    result_.names.push_back(full);
  } catch (Error& error) {
    error.add_context(full);
    throw;
  }
}

/// The layers of an image.
void Puller::fetch(Found& found, const ResolvedImage& image) {
  check_free_space(layout_, image.layers, request_.keep_blobs);
  FetchContext context{.layout = layout_,
                       .supply = supply_from(*found.registry),
                       .map = map_,
                       .progress = progress_,
                       .unpack = request_.unpack,
                       .keep_blobs = request_.keep_blobs,
                       .mutex = {},
                       .warnings = {}};
  fetch_layers(context, image.layers);
  for (std::string& warning : context.warnings) result_.warnings.push_back(found.name.full() + ": " + warning);
}

std::vector<spec::Descriptor> Puller::fetch_entries(bool all) {
  Found found = find_manifest(policy_.resolve(request_.name));
  std::vector<spec::Descriptor> wanted;
  const FetchedManifest& top = found.top;
  if (all && spec::is_index_document(top.text, top.media_type, "manifest " + top.digest.str())) {
    wanted = spec::parse_index(top.text, "index " + top.digest.str()).manifests;
  } else {
    wanted.emplace_back();  // the one for the platform
  }
  std::vector<spec::Descriptor> entries;
  for (spec::Descriptor& entry : wanted) {
    if (!entry.digest.empty()) {
      auto manifest = found.registry->manifest(entry.digest);
      if (!manifest) throw_error("manifest {}: named by the index, but the registry does not have it", entry.digest);
      found.top = std::move(*manifest);
    }
    if (all && fetch_artifact(found)) {
      entries.push_back(std::move(entry));
      continue;
    }
    choose_manifest(found);
    const ResolvedImage image = resolve(found);
    fetch(found, image);
    publish_documents(draft_documents(image));
    entry.media_type = image.parsed.media_type;
    entry.digest = image.manifest.digest.str();
    entry.size = image.manifest.text.size();
    if (!entry.platform) entry.platform = image.config.platform;
    entries.push_back(std::move(entry));
  }
  return entries;
}

/// An entry of an index that is no image (an attestation, a chart, whatever its types are): its blobs are kept as they
/// are, so that the index goes out whole again. false: it is an image, nothing was done.
bool Puller::fetch_artifact(Found& found) {
  const FetchedManifest& manifest = found.top;
  const std::string what = "manifest " + manifest.digest.str();
  if (spec::is_index_document(manifest.text, manifest.media_type, what)) return false;
  const spec::ImageManifest parsed = spec::parse_manifest(manifest.text, what);
  if (!spec::is_artifact(parsed)) return false;
  FetchContext context{.layout = layout_,
                       .supply = supply_from(*found.registry),
                       .map = map_,
                       .progress = progress_,
                       .unpack = false,
                       .keep_blobs = true,
                       .mutex = {},
                       .warnings = {}};
  std::vector<store::ImageLayer> blobs;
  const auto add = [&](const spec::Descriptor& blob) {
    blobs.push_back({.diff_id = "", .chain = "", .blob = blob.digest, .size = blob.size, .media_type = ""});
  };
  for (const spec::Descriptor& layer : parsed.layers) add(layer);
  add(parsed.config);
  check_free_space(layout_, blobs, true);
  fetch_layers(context, blobs);
  store::put_blob(layout_, manifest.digest, manifest.text);
  return true;
}

/// A manifest that is no image: it gets its name, nothing is unpacked. false: it is an image, nothing was done.
bool Puller::pull_artifact(Found& found) {
  const FetchedManifest& manifest = found.top;
  const std::string what = "manifest " + manifest.digest.str();
  if (spec::is_index_document(manifest.text, manifest.media_type, what)) return false;
  const spec::ImageManifest parsed = spec::parse_manifest(manifest.text, what);
  // Layers that cannot be unpacked are an image's fault, an artifact says what it is.
  const std::string& config = parsed.config.media_type;
  const bool says =
      !parsed.artifact_type.empty() || (config != spec::media::kConfig && config != spec::media::kDockerConfig);
  if (!spec::is_artifact(parsed) || !says) return false;
  const std::string type = parsed.artifact_type.empty() ? config : parsed.artifact_type;
  if (!request_.artifacts) {
    throw Error(fmt::format("no container image but an artifact of the type {}", kelp::quoted(type)))
        .with_hint("kelp pull keeps it, kelp push sends it on");
  }
  fetch_artifact(found);
  store::put_artifact(layout_, found.name.digest.empty() ? found.name.full() : "", found.name.base(),
                      {.media_type = parsed.media_type, .digest = manifest.digest.str(), .size = manifest.text.size()});
  store::ImageRecord record;
  record.digest = manifest.digest.str();
  result_.images.push_back(std::move(record));
  result_.names.push_back(found.name.full());
  return true;
}

void Puller::pull_all_tags(const std::vector<spec::ImageName>& candidates) {
  std::string problem = "no such repository";
  for (const spec::ImageName& candidate : candidates) {
    for (PullSource& source : policy_.sources(candidate)) {
      Registry registry(http_, std::move(source), request_.registry);
      const auto tags = registry.tags();
      if (!tags) continue;
      for (const std::string& tag : *tags) {
        spec::ImageName name = candidate;
        name.tag = tag;
        name.digest.clear();
        pull_one({name});
      }
      if (!result_.images.empty()) return;
      problem = "the repository has no tags";
    }
  }
  throw_error("{}: {}", candidates.front().base(), problem);
}

Found Puller::find_manifest(const std::vector<spec::ImageName>& candidates) {
  std::vector<std::string> problems;
  std::string hint;
  for (const spec::ImageName& name : candidates) {
    const std::string full = name.full();
    signatures_.check(name);
    progress_.status("Trying to pull " + full + "...");
    try {
      for (PullSource& source : policy_.sources(name)) {
        const bool mirror = source.mirror;
        const std::string host = source.name.registry;
        auto registry = std::make_unique<Registry>(http_, std::move(source), request_.registry);
        try {
          const std::string& reference = name.digest.empty() ? name.tag : name.digest;
          if (auto manifest = registry->manifest(reference))
            return Found{name, std::move(registry), std::move(*manifest)};
          if (!mirror) problems.push_back(full + ": the registry has no such image");
        } catch (const Error& error) {
          if (!mirror) throw;
          log::debug("mirror {}: {}", host, error.message());
        }
      }
    } catch (Error& error) {
      problems.push_back(full + ": " + error.message());
      if (hint.empty()) hint = error.hint();
      if (candidates.size() == 1) {
        error.add_context(full);
        throw;
      }
    }
  }
  throw Error(join(problems, "; ")).with_hint(hint);
}

/// Of an index, the manifest for the platform takes its place.
void Puller::choose_manifest(Found& found) {
  const FetchedManifest& top = found.top;
  found.list_digest.clear();
  if (!spec::is_index_document(top.text, top.media_type, "manifest " + top.digest.str())) return;
  found.list_digest = top.digest.str();
  const spec::ImageIndex index = spec::parse_index(top.text, "index " + found.list_digest);
  const spec::Descriptor* chosen = spec::choose_platform(index, request_.platform);
  if (chosen == nullptr) {
    std::vector<std::string> there;
    for (const spec::Descriptor& entry : index.manifests) {
      if (entry.platform && entry.platform->os != "unknown") there.push_back(entry.platform->str());
    }
    throw_error("no image for {} in the index (it has: {})", request_.platform.str(),
                there.empty() ? "none" : printable(join(there, ", ")));
  }
  // A manifest that is here already (another tag of the same image) needs no second request.
  const DigestName digest = DigestName::require(chosen->digest);
  if (store::has_blob(layout_, digest)) {
    const std::string text = store::read_blob(layout_, digest, spec::kMaxDocumentBytes);
    if (sha256_of(text) == digest) {
      found.top = {text, chosen->media_type, digest};
      return;
    }
  }
  auto manifest = found.registry->manifest(chosen->digest);
  if (!manifest) throw_error("manifest {}: named by the index, but the registry does not have it", chosen->digest);
  found.top = std::move(*manifest);
}

std::string Puller::read_config(Registry& registry, const spec::Descriptor& config) {
  const DigestName digest = DigestName::require(config.digest);
  if (store::has_blob(layout_, digest)) return store::read_blob(layout_, digest, spec::kMaxImageConfigBytes);
  return registry.small_blob(digest, config.size, spec::kMaxImageConfigBytes);
}

/// before  choose_manifest(found)
ResolvedImage Puller::resolve(const Found& found) {
  ResolvedImage image{.manifest = found.top};
  const std::string what = "manifest " + image.manifest.digest.str();
  if (spec::is_index_document(image.manifest.text, image.manifest.media_type, what)) {
    throw_error("{}: an index inside an index", what);
  }
  image.parsed = spec::parse_manifest(image.manifest.text, what);
  for (size_t i = 0; i < image.parsed.layers.size(); ++i) {
    const std::string& type = image.parsed.layers[i].media_type;
    if (!spec::is_layer_type(type))
      throw_error("{}: layers[{}]: {} is no kind of layer that can be unpacked", what, i, kelp::quoted(type));
  }
  image.config_text = read_config(*found.registry, image.parsed.config);
  const std::string config_what = "config " + image.parsed.config.digest;
  image.config = spec::parse_image_config(image.config_text, config_what);
  const auto& diff_ids = image.config.diff_ids;
  if (diff_ids.size() != image.parsed.layers.size()) {
    throw_error("{}: rootfs.diff_ids: {} entries for the {} layers of the manifest", config_what, diff_ids.size(),
                image.parsed.layers.size());
  }
  const std::vector<std::string> chains = chain_ids(diff_ids);
  for (size_t i = 0; i < diff_ids.size(); ++i) {
    const spec::Descriptor& layer = image.parsed.layers[i];
    image.layers.push_back({diff_ids[i], chains[i], layer.digest, layer.size, layer.media_type});
  }
  return image;
}

std::uint64_t Puller::unpacked_size(const std::vector<store::ImageLayer>& layers) const {
  std::uint64_t sum = 0;
  for (const store::ImageLayer& layer : layers) {
    const auto info = store::read_layer(layout_, layer.chain, map_);
    if (!info) return 0;
    sum += info->bytes;
  }
  return sum;
}

/// Configuration and manifest, in this order, as far as they are not in the store.
std::vector<Puller::Draft> Puller::draft_documents(const ResolvedImage& image) {
  std::vector<Draft> drafts;
  const auto add = [&](const DigestName& digest, const std::string& text) {
    if (store::has_blob(layout_, digest)) return;
    store::BlobWriter writer(layout_);
    writer.write(text);
    writer.sync();
    drafts.push_back({digest, std::move(writer)});
  };
  add(DigestName::require(image.parsed.config.digest), image.config_text);
  add(image.manifest.digest, image.manifest.text);
  return drafts;
}

void Puller::publish_documents(std::vector<Draft> drafts) {
  for (Draft& draft : drafts) draft.writer.publish(draft.digest);
}

/// After publish_documents() and fetch().
store::ImageRecord Puller::publish(const Found& found, const ResolvedImage& image) {
  store::NewImage fresh;
  fresh.manifest.media_type = image.parsed.media_type;
  fresh.manifest.digest = image.manifest.digest.str();
  fresh.manifest.size = image.manifest.text.size();
  for (const store::ImageLayer& layer : image.layers) fresh.chains.push_back(layer.chain);
  if (found.name.digest.empty()) {
    fresh.names = {found.name.full()};
  } else {
    fresh.repos = {found.name.base()};
  }
  fresh.list_digest = found.list_digest;
  fresh.unpacked_size = unpacked_size(image.layers);
  return store::add_image(layout_, fresh);
}

std::string result_document(const PullResult& result) {
  nlohmann::json document{{"v", 1}, {"images", nlohmann::json::array()}, {"warnings", result.warnings}};
  for (size_t i = 0; i < result.images.size(); ++i) {
    const store::ImageRecord& image = result.images[i];
    document["images"].push_back({{"id", image.id}, {"digest", image.digest}, {"name", result.names[i]}});
  }
  return document.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

PullResult pull(const store::Layout& layout, const store::IdMapping& map, Http& http, const RegistryPolicy& policy,
                const PullRequest& request, Progress& progress) {
  return Puller(layout, map, http, policy, request, progress).run();
}

std::vector<spec::Descriptor> fetch_for_index(const store::Layout& layout, const store::IdMapping& map, Http& http,
                                              const RegistryPolicy& policy, const PullRequest& request, bool all,
                                              Progress& progress) {
  return Puller(layout, map, http, policy, request, progress).fetch_entries(all);
}

std::string fetch_document(const store::Layout& layout, const store::IdMapping& map, Http& http,
                           const RegistryPolicy& policy, const PullRequest& request, Progress& progress) {
  return Puller(layout, map, http, policy, request, progress).document();
}

std::string verb_pull(VerbRequest& request) {
  const Arguments& arguments = request.arguments;
  arguments.need_positional(1, 1);
  if (is_stored_image(arguments.positional[0])) return pull_stored_image(request);
  PullRequest pull_request;
  pull_request.name = arguments.positional[0];
  const auto platform = arguments.value("platform");
  pull_request.platform = platform ? spec::parse_platform(*platform) : spec::host_platform();
  pull_request.policy = arguments.value("policy").value_or("always");
  pull_request.all_tags = arguments.flag("all-tags");
  pull_request.unpack = !arguments.flag("no-unpack");
  pull_request.artifacts = arguments.flag("artifacts");
  pull_request.keep_blobs = !arguments.flag("give-up-blobs");
  pull_request.registry = registry_options(arguments);
  Http http(http_options(arguments));
  const RegistryPolicy policy = RegistryPolicy::load();
  return result_document(pull(request.layout, request.map, http, policy, pull_request, request.progress));
}

}  // namespace kelp::image
