#include "image/take_over.h"

#include <fcntl.h>

#include <algorithm>
#include <map>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"
#include "image/digest.h"
#include "image/fetch_layer.h"
#include "image/signature_policy.h"
#include "image/transports/containers_storage.h"
#include "image/transports/docker_store.h"
#include "image/transports/tar_split.h"
#include "image/verbs.h"
#include "store/blobs.h"
#include "store/prune.h"

namespace kelp::image {

namespace {

constexpr size_t kBuffer = 256 << 10;
constexpr std::string_view kStorage = "containers-storage:";

/// The documents of the image, checked against each other, as they are to be kept here.
struct Plan {
  spec::ImageManifest manifest;
  std::string manifest_text;
  spec::ImageConfig config;
  std::vector<store::ImageLayer> layers;
  bool is_new = false;    ///< the manifest is not the one that was there
  bool is_plain = false;  ///< a layer is kept uncompressed
};

std::string name_of(const ForeignImage& image) {
  return image.names.empty() ? image.id.substr(0, 12) : image.names.front();
}

struct Recipe {
  Recipe(const ForeignLayer& layer, const std::string& owner)
      : what("layer " + layer.diff_id), file(::open(layer.recipe.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (!file && errno == ENOENT)
      throw Error(fmt::format("{}: {} keeps no recipe of its tar ({} is missing), so its digest cannot be kept", what,
                              owner, layer.recipe))
          .with_hint(fmt::format("{} save -o FILE IMAGE, then kelp load -i FILE", owner));
    if (!file) throw_errno("{}: open {}", what, layer.recipe);
    raw.emplace(file.get(), layer.recipe);
    lines = decompress(*raw, layer.recipe, InflateLimits::none());
  }
  std::string what;
  Fd file;
  std::optional<FdSource> raw;
  std::unique_ptr<Source> lines;
};

std::uint64_t size_of(const ForeignLayer& layer, const std::string& owner) {
  if (layer.size != 0) return layer.size;
  const Recipe recipe(layer, owner);
  return tar_split_size(*recipe.lines, recipe.what);
}

/// One tar, made again from `offset` on.
void make_tar(const ForeignLayer& layer, const std::string& owner, std::uint64_t offset, std::uint64_t bound,
              const BodySink& sink, const std::stop_token& stop) {
  const Recipe recipe(layer, owner);
  const Fd tree(::open(layer.tree.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!tree) throw_errno("{}: open {}", recipe.what, layer.tree);
  TarSplitSource tar(*recipe.lines, tree.get(), recipe.what);
  std::vector<std::byte> buffer(kBuffer);
  std::uint64_t position = 0;
  while (const size_t got = tar.read(buffer.data(), buffer.size())) {
    if (stop.stop_requested()) throw Cancelled();
    const size_t skipped =
        position >= offset ? 0 : static_cast<size_t>(std::min<std::uint64_t>(got, offset - position));
    position += got;
    if (position > bound) throw_error("{}: longer than the {} bytes that it should have", recipe.what, bound);
    if (skipped < got) sink(std::span(buffer).subspan(skipped, got - skipped));
  }
}

bool is_here(const store::Layout& layout, const std::string& digest) {
  const auto name = DigestName::parse(digest);
  return name && name->algorithm() == "sha256" && store::has_blob(layout, *name);
}

Plan make_plan(const TakeOverContext& context, const ForeignImage& image) {
  const std::string what = fmt::format("{}'s image {}", context.owner, name_of(image));
  Plan plan;
  const DigestName config_digest = sha256_of(image.config_text);
  plan.config = spec::parse_image_config(image.config_text, what + ": configuration");
  const auto& diff_ids = plan.config.diff_ids;
  if (image.manifest_text.empty()) {
    plan.is_new = true;
    plan.manifest.config = {
        .media_type = spec::media::kConfig, .digest = config_digest.str(), .size = image.config_text.size()};
    plan.manifest.layers.resize(diff_ids.size());
  } else {
    plan.manifest = spec::parse_manifest(image.manifest_text, what + ": manifest");
  }
  if (plan.manifest.config.digest != config_digest.str())
    throw_error("{}: its configuration has the digest {}, not {}", what, config_digest.str(),
                plan.manifest.config.digest);
  if (diff_ids.size() != plan.manifest.layers.size() || diff_ids.size() != image.layers.size())
    throw_error("{}: {} layers in the configuration, {} in the manifest, {} there", what, diff_ids.size(),
                plan.manifest.layers.size(), image.layers.size());
  const bool docker = plan.manifest.media_type == spec::media::kDockerManifest;
  const std::vector<std::string> chains = chain_ids(diff_ids);
  for (size_t i = 0; i < diff_ids.size(); ++i) {
    spec::Descriptor& layer = plan.manifest.layers[i];
    if (image.layers[i].diff_id != diff_ids[i])
      throw_error("{}: layer {} is {} there, but the configuration says {}", what, i, image.layers[i].diff_id,
                  diff_ids[i]);
    const bool kept = layer.digest == diff_ids[i] || is_here(context.layout, layer.digest);
    if (!kept || !spec::is_layer_type(layer.media_type)) {
      layer = {.media_type = docker ? spec::media::kDockerLayerTar : spec::media::kLayerTar,
               .digest = diff_ids[i],
               .size = size_of(image.layers[i], context.owner)};
      plan.is_new = true;
    }
    plan.is_plain |= layer.digest == diff_ids[i];
    plan.layers.push_back({diff_ids[i], chains[i], layer.digest, layer.size, layer.media_type});
  }
  plan.manifest_text = plan.is_new ? spec::print_manifest(plan.manifest) : image.manifest_text;
  return plan;
}

/// One image of a list in a result document.
nlohmann::ordered_json image_json(const store::ImageRecord& image, const std::string& name) {
  return {{"id", image.id}, {"digest", image.digest}, {"name", name}};
}

struct Taken {
  std::vector<std::pair<store::ImageRecord, std::string>> images;
  std::vector<std::string> failures;
  size_t nameless = 0;
};

/// Under each name that it has there or would get here, or by which it was asked for.
void check_policy(const SignaturePolicy& policy, const ContainersStorage& storage, const ForeignImage& image) {
  for (const std::string& name : image.names) policy.check_stored(storage.driver(), storage.root(), name);
  for (const std::string& name : image.digests) policy.check_stored(storage.driver(), storage.root(), name);
  if (image.names.empty() && image.digests.empty()) policy.check_stored(storage.driver(), storage.root(), "");
}

/// Every image with a name; one that cannot be read does not keep the others from coming.
template <typename Find>
Taken take_all(TakeOverContext& context, const std::vector<std::string>& ids, const Find& find) {
  Taken taken;
  for (const std::string& id : ids) {
    try {
      const ForeignImage image = find(id);
      if (image.names.empty()) {
        ++taken.nameless;
        continue;
      }
      const store::ImageRecord record = take_over(context, image);
      for (const std::string& name : image.names) taken.images.emplace_back(record, name);
    } catch (const Error& error) {
      taken.failures.push_back(fmt::format("image {}: {}", id.substr(0, 12), error.message()));
    }
  }
  return taken;
}

}  // namespace

store::ImageRecord take_over(TakeOverContext& context, const ForeignImage& image) {
  const Plan plan = make_plan(context, image);
  check_free_space(context.layout, plan.layers, true);
  std::map<std::string, const ForeignLayer*> sources;
  for (const ForeignLayer& layer : image.layers) sources[layer.diff_id] = &layer;
  FetchContext fetch{.layout = context.layout,
                     .supply =
                         [&](const DigestName& digest, std::uint64_t offset, std::uint64_t bound, const BodySink& sink,
                             const std::stop_token& stop) {
                           make_tar(*sources.at(digest.str()), context.owner, offset, bound, sink, stop);
                         },
                     .map = context.map,
                     .progress = context.progress,
                     .unpack = context.unpack,
                     .mutex = {},
                     .warnings = {}};
  try {
    fetch_layers(fetch, plan.layers);
  } catch (Error& error) {
    error.add_context(fmt::format("{}'s image {}", context.owner, name_of(image)));
    throw;
  }
  const std::string shown = name_of(image);
  for (std::string& warning : fetch.warnings) context.warnings.push_back(shown + ": " + warning);
  const DigestName digest = sha256_of(plan.manifest_text);
  store::put_blob(context.layout, sha256_of(image.config_text), image.config_text);
  store::put_blob(context.layout, digest, plan.manifest_text);
  store::NewImage fresh;
  fresh.manifest = {.media_type = plan.manifest.media_type, .digest = digest.str(), .size = plan.manifest_text.size()};
  for (const store::ImageLayer& layer : plan.layers) {
    fresh.chains.push_back(layer.chain);
    fresh.unpacked_size += store::layer_size(context.layout, layer.chain).value_or(layer.size);
  }
  fresh.names = image.names;
  fresh.repos = image.repos;
  fresh.made_here = plan.is_plain;
  if (plan.is_new && !image.manifest_text.empty()) {
    context.warnings.push_back(
        fmt::format("{}: {} keeps no compressed layers, so the manifest is a new one ({} there, {} here); the image's "
                    "id and its layers' diff ids are the same",
                    shown, context.owner, sha256_of(image.manifest_text).str(), digest.str()));
  }
  return store::add_image(context.layout, fresh);
}

bool is_stored_image(std::string_view name) { return starts_with(name, kStorage); }

std::string pull_stored_image(VerbRequest& request) {
  const Arguments& arguments = request.arguments;
  if (arguments.flag("all-tags")) throw_usage("--all-tags: only a registry has a list of tags");
  const StorageName name = parse_storage_name(std::string_view(arguments.positional[0]).substr(kStorage.size()));
  if (name.image.empty()) throw_usage("{}: the image is missing", kelp::quoted(arguments.positional[0]));
  const auto platform = arguments.value("platform");
  const store::StoreUse use(request.layout);
  try {
    const ContainersStorage storage(name);
    const ForeignImage image =
        storage.find(name.image, platform ? spec::parse_platform(*platform) : spec::host_platform());
    const SignaturePolicy policy = SignaturePolicy::load();
    check_policy(policy, storage, image);
    request.progress.status(fmt::format("Reading {} in {}...", name.image, storage.root()));
    TakeOverContext context{.layout = request.layout,
                            .map = request.map,
                            .progress = request.progress,
                            .unpack = !arguments.flag("no-unpack"),
                            .owner = "podman",
                            .warnings = {}};
    const store::ImageRecord record = take_over(context, image);
    return nlohmann::ordered_json{{"v", 1},
                                  {"images", {image_json(record, image.names.empty() ? "" : image.names.front())}},
                                  {"warnings", context.warnings}}
        .dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  } catch (...) {
    store::sweep_if_idle(request.layout);
    throw;
  }
}

std::string verb_take_over(VerbRequest& request) {
  const Arguments& arguments = request.arguments;
  arguments.need_positional(1, 1);
  const std::string& owner = arguments.positional[0];
  const std::string root = arguments.value("store").value_or("");
  const store::StoreUse use(request.layout);
  const SignaturePolicy policy = SignaturePolicy::load();
  TakeOverContext context{.layout = request.layout,
                          .map = request.map,
                          .progress = request.progress,
                          .unpack = !arguments.flag("no-unpack"),
                          .owner = owner,
                          .warnings = {}};
  Taken taken;
  std::string where;
  if (owner == "podman") {
    const ContainersStorage storage({.driver = "", .root = root, .image = ""});
    where = storage.root();
    taken = take_all(context, storage.image_ids(), [&](const std::string& id) {
      ForeignImage image = storage.find("@" + id, spec::host_platform());
      check_policy(policy, storage, image);
      return image;
    });
  } else if (owner == "docker") {
    const DockerStore docker(root);
    where = docker.root();
    taken = take_all(context, docker.image_ids(), [&](const std::string& id) {
      ForeignImage image = docker.find(id);
      for (const std::string& name : image.names) policy.check("docker-daemon", name);
      return image;
    });
  } else {
    throw_usage("{}: the stores of podman and docker can be read", kelp::quoted(owner));
  }
  nlohmann::ordered_json images = nlohmann::ordered_json::array();
  for (const auto& [record, name] : taken.images) images.push_back(image_json(record, name));
  return nlohmann::ordered_json{{"v", 1},
                                {"root", where},
                                {"images", std::move(images)},
                                {"failures", taken.failures},
                                {"nameless", taken.nameless},
                                {"warnings", context.warnings}}
      .dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace kelp::image
