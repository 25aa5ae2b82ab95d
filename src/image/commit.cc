// A container's writable layer as the top layer of a new image, and archives unpacked into trees that exist already.
#include <fcntl.h>
#include <unistd.h>

#include <vector>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "image/compression.h"
#include "image/digest.h"
#include "image/pack.h"
#include "image/unpack.h"
#include "image/verbs.h"
#include "spec/image_docs.h"
#include "spec/image_name.h"
#include "store/blobs.h"
#include "store/images.h"
#include "store/prune.h"
#include "sys/lock.h"

namespace kelp::image {
namespace {

class BlobSink final : public Sink {
 public:
  explicit BlobSink(store::BlobWriter& writer) : writer_(writer) {}
  void write(const void* data, size_t size) override { writer_.write(data, size); }

 private:
  store::BlobWriter& writer_;
};

int inherited_directory(const Arguments& arguments, const char* option) {
  const auto number = to_int(arguments.value(option).value_or(""), 3, INT32_MAX);
  if (!number) throw_usage("--{} must be a descriptor", option);
  return static_cast<int>(*number);
}

struct Packed {
  DigestName digest;
  std::uint64_t size = 0;
};

Packed pack_layer(VerbRequest& request, int root, bool overlay, std::vector<std::string>& warnings) {
  store::BlobWriter writer(request.layout);
  BlobSink blob(writer);
  HashingSink sink(&blob);
  PackOptions options{.map = request.map, .overlay = overlay};
  options.owners_files = request.arguments.values("owners");
  for (auto& warning : pack_tree(root, sink, options).warnings) warnings.push_back(std::move(warning));
  Packed packed{sink.digest(), sink.count()};
  writer.publish(packed.digest);
  return packed;
}

/// The image below: its layers, or none with --squash and for a container that had no image.
void take_base(VerbRequest& request, bool squash, spec::ImageConfig& config, spec::ImageManifest& manifest) {
  const auto digest = request.arguments.value("base");
  if (!digest) return;
  const auto image = store::image_by_manifest(request.layout, *digest);
  if (!image) throw_error("the image of the container ({}) is gone", *digest);
  config = store::read_image_config(request.layout, *image);
  if (squash) {
    config.diff_ids.clear();
    config.history.clear();
    return;
  }
  for (const auto& layer : image->layers)
    manifest.layers.push_back({.media_type = layer.media_type, .digest = layer.blob, .size = layer.size});
}

/// Docker's manifests have no zstd layers: such a one is kept once more, as a plain tar.
void inflate_layer(VerbRequest& request, spec::Descriptor& layer, const std::string& diff_id) {
  const Fd blob = store::open_blob(request.layout, DigestName::require(layer.digest));
  FdSource packed(blob.get(), "the blob " + layer.digest);
  const auto plain = decompress(packed, "the blob " + layer.digest, InflateLimits::none());
  HashingSource hashed(*plain);
  store::BlobWriter writer(request.layout);
  std::vector<char> buffer(256UL * 1024);
  while (const size_t got = hashed.read(buffer.data(), buffer.size())) writer.write(buffer.data(), got);
  const DigestName digest = hashed.digest();
  if (digest.str() != diff_id) throw_error("the blob {} does not hold the layer {}", layer.digest, diff_id);
  writer.publish(digest);
  layer.digest = diff_id;
  layer.size = hashed.count();
  layer.media_type = spec::media::kDockerLayerTar;
}

/// One manifest has one family of media types, whatever the image below came as.
void set_media_types(VerbRequest& request, spec::ImageManifest& manifest, const std::vector<std::string>& diff_ids,
                     bool docker) {
  namespace media = spec::media;
  if (docker) {
    manifest.media_type = media::kDockerManifest;
    manifest.config.media_type = media::kDockerConfig;
  }
  for (size_t i = 0; i < manifest.layers.size(); ++i) {
    spec::Descriptor& layer = manifest.layers[i];
    if (layer.media_type == media::kLayerGzip || layer.media_type == media::kDockerLayerGzip)
      layer.media_type = docker ? media::kDockerLayerGzip : media::kLayerGzip;
    else if (layer.media_type == media::kLayerTar || layer.media_type == media::kDockerLayerTar)
      layer.media_type = docker ? media::kDockerLayerTar : media::kLayerTar;
    else if (docker && layer.media_type == media::kLayerZstd)
      inflate_layer(request, layer, diff_ids.at(i));
  }
}

store::ImageRecord commit(VerbRequest& request, std::vector<std::string>& warnings) {
  const Arguments& arguments = request.arguments;
  const bool squash = arguments.flag("squash");
  const bool docker = arguments.value("format").value_or("oci") == "docker";
  Fd opened;
  int root = -1;
  if (const auto upper = arguments.value("upper")) {
    opened = Fd(::open(upper->c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    if (!opened) throw_errno("open {}", *upper);
    root = opened.get();
  } else {
    root = inherited_directory(arguments, "root-fd");
  }
  const store::StoreUse use(request.layout);
  spec::ImageConfig config;
  spec::ImageManifest manifest;
  config.platform = spec::host_platform();
  take_base(request, squash, config, manifest);
  request.progress.status("Writing the layer");
  const Packed packed = pack_layer(request, root, !squash && arguments.value("upper").has_value(), warnings);
  config.diff_ids.push_back(packed.digest.str());
  manifest.layers.push_back({.media_type = spec::media::kLayerTar, .digest = packed.digest.str(), .size = packed.size});
  if (const auto run = arguments.value("config")) config.config = spec::parse_run_config(*run, "--config");
  config.created = arguments.value("created").value_or("");
  if (const auto author = arguments.value("author")) config.author = *author;
  config.comment = docker ? arguments.value("message").value_or("") : "";
  config.history.push_back({.created = config.created,
                            .created_by = arguments.value("created-by").value_or("kelp commit"),
                            .author = arguments.value("author").value_or(""),
                            .comment = arguments.value("message").value_or("")});
  const std::string config_text = spec::print_image_config(config);
  manifest.config = {
      .media_type = spec::media::kConfig, .digest = sha256_of(config_text).str(), .size = config_text.size()};
  set_media_types(request, manifest, config.diff_ids, docker);
  const std::string manifest_text = spec::print_manifest(manifest);
  store::put_blob(request.layout, sha256_of(config_text), config_text);
  store::put_blob(request.layout, sha256_of(manifest_text), manifest_text);
  store::NewImage image;
  image.made_here = true;
  image.manifest = {
      .media_type = manifest.media_type, .digest = sha256_of(manifest_text).str(), .size = manifest_text.size()};
  image.chains = chain_ids(config.diff_ids);
  if (const auto name = arguments.value("name")) image.names = {spec::parse_local_name(*name).tagged().full()};
  return store::add_image(request.layout, image);
}

}  // namespace

std::string verb_commit(VerbRequest& request) {
  request.arguments.need_positional(0, 0);
  try {
    std::vector<std::string> warnings;
    const store::ImageRecord image = commit(request, warnings);
    return nlohmann::ordered_json{{"images", {{{"id", image.id}, {"digest", image.digest}}}}, {"warnings", warnings}}
        .dump();
  } catch (...) {
    store::sweep_if_idle(request.layout);
    throw;
  }
}

/// Standard input, compressed or not, below the directory given. What stands there already is replaced by name.
std::string verb_untar(VerbRequest& request) {
  request.arguments.need_positional(0, 0);
  const int root = inherited_directory(request.arguments, "root-fd");
  FdSource source(0, "standard input");
  UnpackOptions options{.map = request.map, .whiteouts = false};
  const auto id = [&](const char* name) -> std::optional<std::uint32_t> {
    const auto text = request.arguments.value(name);
    if (!text) return std::nullopt;
    const auto number = to_int(*text, 0, UINT32_MAX);
    if (!number) throw_usage("--{}: {} is not an id", name, kelp::quoted(*text));
    return static_cast<std::uint32_t>(*number);
  };
  options.uid = id("uid");
  options.gid = id("gid");
  const UnpackResult result = unpack_layer(source, "standard input", root, options);
  return nlohmann::ordered_json{{"files", result.files}, {"warnings", result.warnings}}.dump();
}

}  // namespace kelp::image
