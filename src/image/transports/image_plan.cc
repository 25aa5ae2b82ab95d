#include "image/transports/image_plan.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "spec/image_name.h"

namespace kelp::image {

namespace {

using nlohmann::json;

constexpr unsigned kMaxNesting = 3;
constexpr size_t kMaxImages = 1000;
constexpr const char* kRefName = "org.opencontainers.image.ref.name";
constexpr const char* kContainerdName = "io.containerd.image.name";

std::string blob_path(const std::string& digest) {
  const DigestName name = DigestName::require(digest);
  return fmt::format("blobs/{}/{}", name.algorithm(), name.hex());
}

/// A blob of an OCI layout by its descriptor, checked.
StagedBlob& checked_blob(ArchiveView& view, const std::string& path, const spec::Descriptor& descriptor) {
  StagedBlob& blob = view.blob(path);
  if (blob.digest.str() != descriptor.digest) {
    throw_error("{}: blob {} is damaged: its digest is {}", view.what(), descriptor.digest, blob.digest.str());
  }
  if (blob.size != descriptor.size) {
    throw_error("{}: blob {} has {} bytes, not {}", view.what(), descriptor.digest, blob.size, descriptor.size);
  }
  return blob;
}

std::string checked_text(ArchiveView& view, const std::string& path, const spec::Descriptor& descriptor, size_t max) {
  auto text = view.text(path, max);
  if (!text) throw_error("{}: the archive lacks {}", view.what(), kelp::quoted(path));
  const DigestName digest = sha256_of(*text);
  if (digest.str() != descriptor.digest) {
    throw_error("{}: blob {} is damaged: its digest is {}", view.what(), descriptor.digest, digest.str());
  }
  return std::move(*text);
}

/// path_of: where the blob of a digest is in this kind of archive.
template <typename PathOf>
ImagePlan plan_manifest(ArchiveView& view, std::string text, const PathOf& path_of) {
  ImagePlan plan;
  const std::string what = fmt::format("{}: manifest {}", view.what(), sha256_of(text).str());
  plan.manifest = spec::parse_manifest(text, what);
  plan.manifest_text = std::move(text);
  const spec::Descriptor& config = plan.manifest.config;
  plan.config_text = checked_text(view, path_of(config.digest), config, spec::kMaxImageConfigBytes);
  plan.config = spec::parse_image_config(plan.config_text, fmt::format("{}: config {}", view.what(), config.digest));
  if (plan.config.diff_ids.size() != plan.manifest.layers.size()) {
    throw_error("{}: {} layers, but the image config names {}", what, plan.manifest.layers.size(),
                plan.config.diff_ids.size());
  }
  for (const spec::Descriptor& layer : plan.manifest.layers) {
    if (!spec::is_layer_type(layer.media_type)) {
      throw_error("{}: layers[{}].mediaType: {} is not a layer that can be unpacked", what, plan.layers.size(),
                  kelp::quoted(layer.media_type));
    }
    plan.layers.push_back(&checked_blob(view, path_of(layer.digest), layer));
  }
  return plan;
}

/// ref.name may be a full name, a short one (skopeo, podman) or a mere tag beside containerd's full name (buildx).
std::vector<std::string> names_of(const spec::StringMap& annotations) {
  for (const char* key : {kContainerdName, kRefName}) {
    const auto found = annotations.find(key);
    if (found == annotations.end()) continue;
    try {
      return {spec::parse_local_name(found->second).tagged().full()};
    } catch (const UsageError& error) {
      log::warn("{}: {}", key, error.message());
    }
  }
  return {};
}

void plan_index(ArchiveView& view, const std::string& text, const std::string& what, const spec::StringMap& inherited,
                unsigned depth, std::vector<ImagePlan>& plans) {
  const spec::ImageIndex index = spec::parse_index(text, what);
  const auto add = [&](const spec::Descriptor& entry) {
    const spec::StringMap& annotations = entry.annotations.empty() ? inherited : entry.annotations;
    std::string document = checked_text(view, blob_path(entry.digest), entry, spec::kMaxDocumentBytes);
    if (spec::is_index_document(document, entry.media_type, entry.digest)) {
      if (depth >= kMaxNesting) throw_error("{}: indexes nested too deeply", view.what());
      return plan_index(view, document, entry.digest, annotations, depth + 1, plans);
    }
    if (plans.size() >= kMaxImages) throw_error("{}: more than {} images", view.what(), kMaxImages);
    plans.push_back(plan_manifest(view, std::move(document), blob_path));
    plans.back().names = names_of(annotations);
    if (const auto reference = annotations.find(kRefName); reference != annotations.end()) {
      plans.back().reference = reference->second;
    }
  };
  if (depth == 0) {
    for (const spec::Descriptor& entry : index.manifests) add(entry);
    return;
  }
  // Below the top, the entries are one image for several platforms.
  const spec::Descriptor* chosen = spec::choose_platform(index, spec::host_platform());
  if (chosen == nullptr && index.manifests.size() == 1) chosen = &index.manifests[0];
  if (chosen == nullptr) throw_error("{}: {} has no image for {}", view.what(), what, spec::host_platform().str());
  add(*chosen);
}

/// docker save: manifest.json lists {Config, RepoTags, Layers}. There is no manifest in it: one is made.
std::vector<ImagePlan> plan_docker(ArchiveView& view, const std::string& text) {
  const auto fail = [&](std::string_view reason) { throw_error("{}: manifest.json: {}", view.what(), reason); };
  json list;
  try {
    list = json::parse(text);
  } catch (const json::parse_error& error) {
    fail(fmt::format("not valid JSON at byte {}", error.byte));
  }
  if (!list.is_array() || list.empty() || list.size() > kMaxImages) fail("must be a list of images");
  std::vector<ImagePlan> plans;
  for (const json& item : list) {
    if (!item.is_object() || !item.contains("Config") || !item["Config"].is_string() || !item.contains("Layers")) {
      fail("each image needs Config and Layers");
    }
    ImagePlan plan;
    const auto config_path = item["Config"].get<std::string>();
    auto config = view.text(config_path, spec::kMaxImageConfigBytes);
    if (!config) fail(fmt::format("the archive lacks {}", kelp::quoted(config_path)));
    plan.config_text = std::move(*config);
    plan.config = spec::parse_image_config(plan.config_text, fmt::format("{}: {}", view.what(), config_path));
    plan.manifest.config = {.media_type = spec::media::kConfig,
                            .digest = sha256_of(plan.config_text).str(),
                            .size = plan.config_text.size()};
    const json& layers = item["Layers"];
    if (!layers.is_null() && !layers.is_array()) fail("Layers must be a list");
    for (const json& layer : layers) {
      if (!layer.is_string()) fail("Layers must be a list of names");
      StagedBlob& blob = view.blob(layer.get<std::string>());
      const char* type = blob.compression == Compression::gzip   ? spec::media::kLayerGzip
                         : blob.compression == Compression::zstd ? spec::media::kLayerZstd
                                                                 : spec::media::kLayerTar;
      plan.manifest.layers.push_back({.media_type = type, .digest = blob.digest.str(), .size = blob.size});
      plan.layers.push_back(&blob);
    }
    if (plan.config.diff_ids.size() != plan.layers.size()) {
      fail(fmt::format("{} layers, but the image config names {}", plan.layers.size(), plan.config.diff_ids.size()));
    }
    plan.manifest_text = spec::print_manifest(plan.manifest);
    if (item.contains("RepoTags") && item["RepoTags"].is_array()) {
      for (const json& tag : item["RepoTags"]) {
        if (!tag.is_string()) fail("RepoTags must be a list of names");
        plan.names.push_back(spec::parse_image_name(tag.get<std::string>()).tagged().full());
      }
    }
    plans.push_back(std::move(plan));
  }
  return plans;
}

/// source: OCI image layout specification, "oci-layout file"
void check_layout_version(ArchiveView& view) {
  const auto text = view.text("oci-layout", spec::kMaxDocumentBytes);
  if (!text) return;  // archives of old tools lack it
  const auto document = nlohmann::json::parse(*text, nullptr, false);
  const auto version = document.is_object() ? document.find("imageLayoutVersion") : document.end();
  if (!document.is_object() || version == document.end() || !version->is_string())
    throw_error("{}: oci-layout: imageLayoutVersion is missing", view.what());
  if (const auto& found = version->get_ref<const std::string&>(); !starts_with(found, "1."))
    throw_error("{}: oci-layout: version {} is not known here, 1.0.0 is", view.what(), kelp::quoted(found));
}

}  // namespace

std::vector<ImagePlan> plan_images(ArchiveView& view) {
  if (const auto text = view.text("manifest.json", spec::kMaxDocumentBytes)) {
    // A list is docker's; an object is the manifest of a `dir:` directory, its blobs lie beside it by their hex digits.
    const size_t start = text->find_first_not_of(" \t\r\n");
    if (start == std::string::npos || (*text)[start] != '{') return plan_docker(view, *text);
    std::vector<ImagePlan> plans;
    plans.push_back(plan_manifest(
        view, *text, [](const std::string& digest) { return std::string(DigestName::require(digest).hex()); }));
    return plans;
  }
  const auto index = view.text("index.json", spec::kMaxDocumentBytes);
  if (!index) {
    throw Error(view.what() + ": not an image archive: neither manifest.json nor index.json is in it")
        .with_hint("a tar of a root filesystem is taken by `kelp import`");
  }
  check_layout_version(view);
  std::vector<ImagePlan> plans;
  plan_index(view, *index, view.what() + ": index.json", {}, 0, plans);
  if (plans.empty()) throw_error("{}: index.json: no image is in it", view.what());
  return plans;
}

}  // namespace kelp::image
