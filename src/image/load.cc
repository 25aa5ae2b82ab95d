#include "image/load.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <memory>
#include <set>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "image/digest.h"
#include "image/signature_policy.h"
#include "image/transports/image_plan.h"
#include "image/unpack.h"
#include "image/verbs.h"
#include "spec/image_name.h"
#include "store/blobs.h"
#include "store/prune.h"

namespace kelp::image {

namespace {

std::unique_ptr<ArchiveView> open_view(const store::Layout& layout, const std::string& path) {
  const bool standard_input = path.empty() || path == "-";
  const std::string what = standard_input ? "standard input" : path;
  Fd file;
  if (!standard_input) {
    file = Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file) throw_errno("open {}", path);
    struct stat info {};
    if (::fstat(file.get(), &info) < 0) throw_errno("inspect {}", path);
    if (S_ISDIR(info.st_mode)) return open_directory_view(layout, path);
  }
  FdSource source(standard_input ? 0 : file.get(), what);
  return open_tar_view(layout, source, what);
}

/// Blobs first, then layers, the entry in the index last: an image that can be seen is complete.
store::ImageRecord publish(const store::Layout& layout, ImagePlan& plan, const LoadOptions& options, Progress& progress,
                           std::vector<std::string>& warnings) {
  for (StagedBlob* layer : plan.layers) {
    if (!layer->writer.complete()) layer->writer.publish(layer->digest);
  }
  const DigestName config_digest = sha256_of(plan.config_text);
  const DigestName manifest_digest = sha256_of(plan.manifest_text);
  store::put_blob(layout, config_digest, plan.config_text);
  store::put_blob(layout, manifest_digest, plan.manifest_text);
  store::NewImage image;
  image.manifest = {
      .media_type = plan.manifest.media_type, .digest = manifest_digest.str(), .size = plan.manifest_text.size()};
  image.chains = chain_ids(plan.config.diff_ids);
  image.names = plan.names;
  if (options.map != nullptr) {
    std::vector<store::ImageLayer> layers;
    for (size_t i = 0; i < plan.layers.size(); ++i) {
      layers.push_back({.diff_id = plan.config.diff_ids[i],
                        .chain = image.chains[i],
                        .blob = plan.layers[i]->digest.str(),
                        .size = plan.layers[i]->size,
                        .media_type = plan.manifest.layers[i].media_type});
      progress.layer(layers.back().blob, layers.back().size);
    }
    ensure_layers(
        layout, layers, *options.map,
        [&](const store::ImageLayer& layer, std::uint64_t done) { progress.bytes(layer.blob, done, layer.size); },
        &warnings);
    for (const store::ImageLayer& layer : layers) {
      if (const auto info = store::read_layer(layout, layer.chain, *options.map)) image.unpacked_size += info->bytes;
      progress.done(layer.blob);
    }
  }
  return store::add_image(layout, image);
}

/// Leaves the one image that the archive has under that name.
void choose_plan(std::vector<ImagePlan>& plans, const std::string& reference, const std::string& what) {
  std::string full;
  try {
    full = spec::parse_image_name(reference).tagged().full();
  } catch (const UsageError&) {  // a mere tag, or anything that a layout's annotation may hold
  }
  std::vector<std::string> there;
  for (const ImagePlan& plan : plans) {
    there.insert(there.end(), plan.names.begin(), plan.names.end());
  }
  std::erase_if(plans, [&](const ImagePlan& plan) {
    return plan.reference != reference && std::find(plan.names.begin(), plan.names.end(), full) == plan.names.end();
  });
  if (plans.empty()) {
    throw_error("{}: there is no image {} in it (it has: {})", what, kelp::quoted(reference),
                there.empty() ? "no names" : printable(join(there, ", ")));
  }
}

}  // namespace

LoadResult load_images(const store::Layout& layout, const std::string& path, const LoadOptions& options,
                       Progress& progress) {
  LoadResult result;
  const auto load = [&] {
    const store::StoreUse use(layout);
    if (!options.transport.empty()) SignaturePolicy::load().check(options.transport, path);
    const auto view = open_view(layout, path);
    std::vector<ImagePlan> plans = plan_images(*view);
    if (!options.reference.empty()) choose_plan(plans, options.reference, view->what());
    for (ImagePlan& plan : plans) {
      result.images.push_back(publish(layout, plan, options, progress, result.warnings));
      result.names.push_back(plan.names);
    }
  };
  try {
    load();
  } catch (...) {
    store::sweep_if_idle(layout);
    throw;
  }
  return result;
}

std::string verb_load(VerbRequest& request) {
  request.arguments.need_positional(0, 0);
  const LoadOptions options{.map = request.arguments.flag("no-unpack") ? nullptr : &request.map,
                            .reference = request.arguments.value("reference").value_or(""),
                            .transport = request.arguments.value("transport").value_or("")};
  const LoadResult loaded =
      load_images(request.layout, request.arguments.value("i").value_or(""), options, request.progress);
  nlohmann::ordered_json images = nlohmann::ordered_json::array();
  for (size_t i = 0; i < loaded.images.size(); ++i) {
    const store::ImageRecord& image = loaded.images[i];
    const std::vector<std::string> names = loaded.names[i].empty() ? std::vector<std::string>{""} : loaded.names[i];
    for (const std::string& name : names) {
      images.push_back({{"name", name}, {"id", image.id}, {"digest", image.digest}});
    }
  }
  return nlohmann::ordered_json{{"images", std::move(images)}, {"warnings", loaded.warnings}}.dump();
}

std::string verb_unpack(VerbRequest& request) {
  request.arguments.need_positional(1, 1);
  const store::StoreUse use(request.layout);
  const store::ImageRecord image = store::require_image(request.layout, request.arguments.positional[0]);
  std::vector<std::string> warnings;
  for (const store::ImageLayer& layer : image.layers) {
    if (!store::layer_ready(request.layout, layer.chain, request.map)) {
      request.progress.layer(layer.blob, layer.size);
      request.progress.unpack(layer.blob);
    }
  }
  ensure_layers(
      request.layout, image.layers, request.map,
      [&](const store::ImageLayer& layer, std::uint64_t done) { request.progress.bytes(layer.blob, done, layer.size); },
      &warnings);
  for (const store::ImageLayer& layer : image.layers) request.progress.done(layer.blob);
  return nlohmann::ordered_json{{"images", {{{"id", image.id}, {"digest", image.digest}}}}, {"warnings", warnings}}
      .dump();
}

}  // namespace kelp::image
