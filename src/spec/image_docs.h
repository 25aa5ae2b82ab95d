#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// OCI image documents and their Docker v2 schema 2 twins as plain structs.
///
/// Every parser takes the text and `what`, the words that name the document in an error ("manifest
/// sha256:…", "index.json"); it throws Error "<what>: <JSON path>: <reason>". Unknown members are ignored (the
/// specification demands it), wrong types and missing required members are errors.
/// source: OCI image-spec v1.1 (image-index.md, manifest.md, config.md, descriptor.md), Docker image manifest v2.2
namespace kelp::spec {

namespace media {
inline constexpr const char* kIndex = "application/vnd.oci.image.index.v1+json";
inline constexpr const char* kManifest = "application/vnd.oci.image.manifest.v1+json";
inline constexpr const char* kConfig = "application/vnd.oci.image.config.v1+json";
inline constexpr const char* kLayerTar = "application/vnd.oci.image.layer.v1.tar";
inline constexpr const char* kLayerGzip = "application/vnd.oci.image.layer.v1.tar+gzip";
inline constexpr const char* kLayerZstd = "application/vnd.oci.image.layer.v1.tar+zstd";
inline constexpr const char* kEmpty = "application/vnd.oci.empty.v1+json";
inline constexpr const char* kDockerList = "application/vnd.docker.distribution.manifest.list.v2+json";
inline constexpr const char* kDockerManifest = "application/vnd.docker.distribution.manifest.v2+json";
inline constexpr const char* kDockerConfig = "application/vnd.docker.container.image.v1+json";
inline constexpr const char* kDockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip";
inline constexpr const char* kDockerLayerTar = "application/vnd.docker.image.rootfs.diff.tar";
}  // namespace media

/// Bounds that keep a hostile document from eating memory.
inline constexpr size_t kMaxDocumentBytes = 4u << 20;  ///< manifests and indexes, as registries limit them
inline constexpr size_t kMaxImageConfigBytes = 8u << 20;
inline constexpr size_t kMaxLayers = 500;  ///< what overlayfs can stack

using Strings = std::vector<std::string>;
using StringMap = std::map<std::string, std::string>;

struct Platform {
  std::string os, architecture, variant, os_version;
  Strings os_features;
  /// "linux/arm64/v8"
  [[nodiscard]] std::string str() const;
};
/// "os/arch[/variant]" or "arch"; throws UsageError. Go's names: x86_64 → amd64, aarch64 → arm64.
Platform parse_platform(std::string_view text);
/// The platform of this machine.
Platform host_platform();

struct Descriptor {
  std::string media_type;
  std::string digest;  ///< checked: DigestName::parse accepts it
  std::uint64_t size = 0;
  StringMap annotations;
  std::optional<Platform> platform;
  std::string artifact_type;
  Strings urls;
};

struct ImageIndex {
  std::string media_type = media::kIndex;
  std::vector<Descriptor> manifests;
  StringMap annotations;
};

struct ImageManifest {
  std::string media_type = media::kManifest;
  Descriptor config;
  std::vector<Descriptor> layers;  ///< base first
  StringMap annotations;
  std::string artifact_type;
  std::optional<Descriptor> subject;
};

/// Docker's HEALTHCHECK; absent from OCI's text but kept by every tool. 0 = the runner's default.
struct HealthConfig {
  Strings test;  ///< {"NONE"}, {"CMD", …}, {"CMD-SHELL", line}
  std::chrono::nanoseconds interval{0}, timeout{0}, start_period{0}, start_interval{0};
  int retries = 0;
};

/// The `config` object of an image configuration: defaults for a container.
struct ImageRunConfig {
  std::string user;
  Strings exposed_ports;  ///< "80/tcp", sorted
  Strings env;            ///< "NAME=value", in order
  Strings entrypoint;     ///< empty = none
  Strings cmd;
  Strings volumes;  ///< paths, sorted
  std::string working_dir;
  StringMap labels;
  std::string stop_signal;
  std::optional<int> stop_timeout;  ///< seconds (Docker's StopTimeout)
  std::optional<HealthConfig> healthcheck;
  Strings shell, on_build;
  bool args_escaped = false;
};

struct HistoryEntry {
  std::string created;  ///< RFC 3339 as written, "" = unknown
  std::string created_by, author, comment;
  bool empty_layer = false;
};

struct ImageConfig {
  std::string created;  ///< RFC 3339 as written, "" = unknown
  std::string author;
  std::string comment;  ///< of Docker's documents; OCI's have comments in their history only
  Platform platform;
  ImageRunConfig config;
  Strings diff_ids;  ///< "sha256:…", base first
  std::vector<HistoryEntry> history;
};

/// true for an index or a Docker manifest list, false for a manifest. A document without mediaType is judged by
/// its members. throws Error for Docker schema 1 and anything else.
bool is_index_document(std::string_view text, std::string_view media_type, std::string_view what);
bool is_index_type(std::string_view media_type) noexcept;
bool is_manifest_type(std::string_view media_type) noexcept;
/// Layer media types that can be unpacked (tar, gzip, zstd; OCI, nondistributable, Docker).
bool is_layer_type(std::string_view media_type) noexcept;

ImageIndex parse_index(std::string_view text, std::string_view what);
ImageManifest parse_manifest(std::string_view text, std::string_view what);
ImageConfig parse_image_config(std::string_view text, std::string_view what);

/// Whether a manifest is something else than an image (an attestation, a chart): its blobs are nobody's to unpack or
/// convert.
bool is_artifact(const ImageManifest& manifest);

/// Canonical: compact, members in the order of the specification, empty optional members left out. The same
/// value always gives the same bytes.
std::string print_index(const ImageIndex& index);
std::string print_manifest(const ImageManifest& manifest);
std::string print_image_config(const ImageConfig& config);
/// Only the `config` object, as stored in image records and shown by inspect.
std::string print_run_config(const ImageRunConfig& config);
ImageRunConfig parse_run_config(std::string_view text, std::string_view what);

/// The entry for a platform: same os and architecture, the wanted variant if there is one, else the best that runs
/// (arm64: v8 or none; amd64: none or v1). Attestations (os "unknown") never match. nullptr = none.
const Descriptor* choose_platform(const ImageIndex& index, const Platform& wanted);

}  // namespace kelp::spec
