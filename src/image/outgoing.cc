#include "image/outgoing.h"

#include <algorithm>
#include <set>
#include <thread>

#include "base/error.h"
#include "base/text.h"
#include "image/blob_sink.h"
#include "image/digest.h"
#include "image/lone_trees.h"
#include "image/workers.h"

namespace kelp::image {

namespace {

constexpr size_t kBuffer = 256 * 1024;
constexpr unsigned kMaxPackers = 4;

Compression compression_of(const spec::Descriptor& layer) {
  if (ends_with(layer.media_type, "gzip") || ends_with(layer.media_type, ".gz")) return Compression::gzip;
  if (ends_with(layer.media_type, "zstd")) return Compression::zstd;
  return Compression::none;
}

const char* layer_type(Compression compression, bool docker) {
  switch (compression) {
    case Compression::gzip:
      return docker ? spec::media::kDockerLayerGzip : spec::media::kLayerGzip;
    case Compression::zstd:
      return spec::media::kLayerZstd;
    default:
      return docker ? spec::media::kDockerLayerTar : spec::media::kLayerTar;
  }
}

/// What a layer is to be packed with; nullopt = it goes out as it is.
std::optional<Compression> wanted_compression(const spec::Descriptor& layer, const OutgoingOptions& options) {
  const Compression now = compression_of(layer);
  if (now == Compression::none) {
    if (options.compression) return options.compression;
    return options.pack_plain ? std::optional(Compression::gzip) : std::nullopt;
  }
  if (options.force && options.compression && (options.again || now != *options.compression)) {
    return options.compression;
  }
  return std::nullopt;
}

/// Packs one layer again into an unnamed file beside the blobs.
OutgoingBlob pack_again(const store::Layout& layout, const spec::Descriptor& layer, Compression compression,
                        int level) {
  const std::string what = "layer " + layer.digest;
  const Fd blob = store::open_blob(layout, DigestName::require(layer.digest));
  FdSource raw(blob.get(), what);
  HashingSource checked(raw);
  const auto plain = decompress(checked, what, InflateLimits::none());
  auto writer = std::make_unique<store::BlobWriter>(layout);
  BlobSink sink(*writer);
  HashingSink hashed(&sink);
  const auto packer = image::compress(hashed, compression, level);
  std::vector<char> buffer(kBuffer);
  while (const size_t got = plain->read(buffer.data(), buffer.size())) packer->write(buffer.data(), got);
  packer->finish();
  while (checked.read(buffer.data(), buffer.size()) > 0) {
  }
  if (checked.digest().str() != layer.digest) throw Error(what + ": damaged").with_hint("pull the image again");
  const std::uint64_t size = hashed.count();
  return OutgoingBlob{.digest = hashed.digest(), .size = size, .file = {}, .made = std::move(writer)};
}

}  // namespace

void convert_manifest(spec::ImageManifest& manifest, bool docker) {
  manifest.media_type = docker ? spec::media::kDockerManifest : spec::media::kManifest;
  if (spec::is_layer_type(manifest.config.media_type) == false &&
      (manifest.config.media_type == spec::media::kConfig ||
       manifest.config.media_type == spec::media::kDockerConfig)) {
    manifest.config.media_type = docker ? spec::media::kDockerConfig : spec::media::kConfig;
  }
  for (spec::Descriptor& layer : manifest.layers) {
    const Compression compression = compression_of(layer);
    if (docker && compression == Compression::zstd) {
      throw UsageError("the format v2s2 has no zstd layers")
          .with_hint(
              "--format oci, or --compression-format gzip "
              "--force-compression");
    }
    layer.media_type = layer_type(compression, docker);
  }
  if (docker) manifest.annotations.clear();
}

Compression parse_compression(const std::string& text) {
  if (text == "gzip") return Compression::gzip;
  if (text == "zstd") return Compression::zstd;
  throw_usage("unknown compression format {} (there are: gzip, zstd)", kelp::quoted(text));
}

int parse_compression_level(const std::string& text, Compression compression) {
  const int highest = compression == Compression::zstd ? 20 : 9;
  const auto level = to_int(text, 1, highest);
  if (!level) {
    throw_usage("compression level {}: {} has the levels 1 to {}", kelp::quoted(text), compression_name(compression),
                highest);
  }
  return static_cast<int>(*level);
}

OutgoingImage prepare_outgoing(const store::Layout& layout, const std::string& wanted_digest,
                               const OutgoingOptions& wanted_options, Progress& progress) {
  const auto kept = store::image_by_manifest(layout, wanted_digest);  // an artifact is none
  const std::string manifest_digest = kept ? with_blobs(layout, *kept, progress).digest : wanted_digest;
  OutgoingImage image{.manifest = {}, .manifest_text = {}, .digest = DigestName::require(manifest_digest), .blobs = {}};
  image.manifest_text = store::read_blob(layout, image.digest, spec::kMaxDocumentBytes);
  image.manifest = spec::parse_manifest(image.manifest_text, "manifest " + manifest_digest);
  std::vector<spec::Descriptor>& layers = image.manifest.layers;
  const OutgoingOptions options = spec::is_artifact(image.manifest) ? OutgoingOptions{} : wanted_options;

  // Pack what has to be packed, each distinct blob once, several at a time.
  std::vector<size_t> todo;
  std::vector<std::optional<OutgoingBlob>> packed(layers.size());
  std::vector<std::optional<Compression>> wanted(layers.size());
  std::map<std::string, size_t> first;
  bool changed = false;
  for (size_t i = 0; i < layers.size(); ++i) {
    wanted[i] = wanted_compression(layers[i], options);
    if (wanted[i] && first.emplace(layers[i].digest, i).second) todo.push_back(i);
  }
  run_parallel(todo.size(), std::min(std::max(1U, std::thread::hardware_concurrency()), kMaxPackers),
               [&](size_t i, const std::stop_token&) {
                 const spec::Descriptor& layer = layers[todo[i]];
                 progress.status(fmt::format("Compressing layer {}", layer.digest.substr(0, 19)));
                 packed[todo[i]] = pack_again(layout, layer, *wanted[todo[i]], options.level);
               });

  const bool docker_now = image.manifest.media_type == spec::media::kDockerManifest;
  std::vector<std::string> original(layers.size());
  for (size_t i = 0; i < layers.size(); ++i) {
    original[i] = layers[i].digest;
    if (!wanted[i]) continue;
    const OutgoingBlob& made = *packed[first.at(layers[i].digest)];
    original[i].clear();
    layers[i].digest = made.digest.str();
    layers[i].size = made.size;
    const bool docker = docker_now && *wanted[i] != Compression::zstd;
    layers[i].media_type = layer_type(*wanted[i], docker);
    changed = true;
  }
  const bool has_zstd = std::any_of(layers.begin(), layers.end(),
                                    [](const auto& layer) { return compression_of(layer) == Compression::zstd; });
  const bool docker = options.format.empty() ? docker_now && !has_zstd : options.format == "v2s2";
  if (docker != docker_now && (changed || !options.format.empty())) {
    convert_manifest(image.manifest, docker);
    changed = true;
  }
  if (changed) {
    image.manifest_text = spec::print_manifest(image.manifest);
    image.digest = sha256_of(image.manifest_text);
  }

  std::set<std::string> seen;
  for (size_t i = 0; i < layers.size(); ++i) {
    if (!seen.insert(layers[i].digest).second) continue;
    if (packed[i]) {
      image.blobs.push_back(std::move(*packed[i]));
      continue;
    }
    const DigestName digest = DigestName::require(layers[i].digest);
    image.blobs.push_back(
        {.digest = digest, .size = layers[i].size, .file = store::open_blob(layout, digest), .made = {}});
  }
  const DigestName config = DigestName::require(image.manifest.config.digest);
  if (seen.insert(config.str()).second) {
    image.blobs.push_back(
        {.digest = config, .size = image.manifest.config.size, .file = store::open_blob(layout, config), .made = {}});
  }
  return image;
}

}  // namespace kelp::image
