#include "spec/image_docs.h"

#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/digest_name.h"
#include "base/error.h"
#include "base/text.h"

namespace kelp::spec {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kMaxManifests = 4096;
constexpr size_t kMaxListEntries = 100'000;

/// A place in a document: the value and its JSON path, for errors.
class Place {
 public:
  Place(const json& value, std::string_view what, std::string path)
      : value_(value), what_(what), path_(std::move(path)) {}

  [[noreturn]] void fail(std::string_view reason) const {
    throw_error("{}: {}: {}", what_, path_.empty() ? "the document" : path_, reason);
  }

  /// A member, nullopt when absent or null (Docker writes null for "nothing").
  [[nodiscard]] std::optional<Place> find(const char* key) const {
    if (!value_.is_object()) fail("must be an object");
    const auto it = value_.find(key);
    if (it == value_.end() || it->is_null()) return std::nullopt;
    return Place(*it, what_, path_.empty() ? key : path_ + "." + key);
  }
  [[nodiscard]] Place need(const char* key) const {
    auto place = find(key);
    if (!place) fail(fmt::format("member \"{}\" is missing", key));
    return std::move(*place);
  }

  [[nodiscard]] std::string text() const {
    if (!value_.is_string()) fail("must be a string");
    return value_.get<std::string>();
  }
  [[nodiscard]] std::string text(const char* key) const {
    const auto place = find(key);
    return place ? place->text() : std::string();
  }
  [[nodiscard]] std::int64_t integer() const {
    if (value_.is_number_unsigned() && value_.get<std::uint64_t>() > INT64_MAX) fail("is too large");
    if (!value_.is_number_integer()) fail("must be an integer");
    return value_.get<std::int64_t>();
  }
  [[nodiscard]] bool boolean(const char* key) const {
    const auto place = find(key);
    if (!place) return false;
    if (!place->value_.is_boolean()) place->fail("must be true or false");
    return place->value_.get<bool>();
  }

  template <typename Fn>
  void each(Fn&& fn, size_t max = kMaxListEntries) const {
    if (!value_.is_array()) fail("must be an array");
    if (value_.size() > max) fail(fmt::format("holds more than {} entries", max));
    for (size_t i = 0; i < value_.size(); ++i) fn(Place(value_[i], what_, fmt::format("{}[{}]", path_, i)));
  }
  [[nodiscard]] Strings strings(const char* key) const {
    Strings result;
    if (const auto place = find(key)) {
      if (place->value_.is_string()) return {place->text()};  // very old images: "Cmd": "sh"
      place->each([&](const Place& entry) { result.push_back(entry.text()); });
    }
    return result;
  }
  /// Keys of an object used as a set: {"80/tcp": {}}.
  [[nodiscard]] Strings keys(const char* key) const {
    Strings result;
    if (const auto place = find(key)) {
      if (!place->value_.is_object()) place->fail("must be an object");
      for (const auto& [name, unused] : place->value_.items()) result.push_back(name);
    }
    return result;
  }
  [[nodiscard]] StringMap map(const char* key) const {
    StringMap result;
    if (const auto place = find(key)) {
      if (!place->value_.is_object()) place->fail("must be an object");
      for (const auto& [name, value] : place->value_.items()) {
        result[name] = Place(value, what_, place->path_ + "." + name).text();
      }
    }
    return result;
  }

 private:
  const json& value_;
  std::string_view what_;
  std::string path_;
};

json load(std::string_view text, std::string_view what, size_t max) {
  if (text.size() > max) throw_error("{}: longer than {} bytes", what, max);
  try {
    json value = json::parse(text);
    if (!value.is_object()) throw_error("{}: the document: must be an object", what);
    return value;
  } catch (const json::parse_error& error) {
    throw_error("{}: not valid JSON at byte {}", what, error.byte);
  }
}

void check_schema(const Place& root) {
  const auto version = root.find("schemaVersion");
  if (!version) root.fail("member \"schemaVersion\" is missing");
  const std::int64_t number = version->integer();
  if (number == 1) version->fail("Docker schema 1 is not supported: the image must be pushed again by a newer tool");
  if (number != 2) version->fail("must be 2");
}

Platform read_platform(const Place& place) {
  return {.os = place.text("os"),
          .architecture = place.text("architecture"),
          .variant = place.text("variant"),
          .os_version = place.text("os.version"),
          .os_features = place.strings("os.features")};
}

Descriptor read_descriptor(const Place& place) {
  Descriptor result;
  result.media_type = place.text("mediaType");
  const Place digest = place.need("digest");
  result.digest = digest.text();
  if (!DigestName::parse(result.digest)) digest.fail("is not a digest: " + kelp::quoted(result.digest));
  const Place size = place.need("size");
  const std::int64_t bytes = size.integer();
  if (bytes < 0) size.fail("is negative");
  result.size = static_cast<std::uint64_t>(bytes);
  result.annotations = place.map("annotations");
  if (const auto platform = place.find("platform")) result.platform = read_platform(*platform);
  result.artifact_type = place.text("artifactType");
  result.urls = place.strings("urls");
  return result;
}

std::chrono::nanoseconds read_nanoseconds(const Place& place, const char* key) {
  const auto value = place.find(key);
  return std::chrono::nanoseconds(value ? value->integer() : 0);
}

ImageRunConfig read_run_config(const Place& place) {
  ImageRunConfig result;
  result.user = place.text("User");
  result.exposed_ports = place.keys("ExposedPorts");
  result.env = place.strings("Env");
  result.entrypoint = place.strings("Entrypoint");
  result.cmd = place.strings("Cmd");
  result.volumes = place.keys("Volumes");
  result.working_dir = place.text("WorkingDir");
  result.labels = place.map("Labels");
  result.stop_signal = place.text("StopSignal");
  if (const auto timeout = place.find("StopTimeout")) result.stop_timeout = static_cast<int>(timeout->integer());
  if (const auto check = place.find("Healthcheck")) {
    HealthConfig health;
    health.test = check->strings("Test");
    health.interval = read_nanoseconds(*check, "Interval");
    health.timeout = read_nanoseconds(*check, "Timeout");
    health.start_period = read_nanoseconds(*check, "StartPeriod");
    health.start_interval = read_nanoseconds(*check, "StartInterval");
    if (const auto retries = check->find("Retries")) health.retries = static_cast<int>(retries->integer());
    result.healthcheck = std::move(health);
  }
  result.shell = place.strings("Shell");
  result.on_build = place.strings("OnBuild");
  result.args_escaped = place.boolean("ArgsEscaped");
  return result;
}

// ---- printing ----

template <typename T>
void put(ordered_json& object, const char* key, const T& value) {
  if (!value.empty()) object[key] = value;
}

ordered_json key_set(const Strings& keys) {
  ordered_json result = ordered_json::object();
  for (const std::string& key : keys) result[key] = ordered_json::object();
  return result;
}

ordered_json print(const Platform& platform) {
  ordered_json result = ordered_json::object();
  result["architecture"] = platform.architecture;
  result["os"] = platform.os;
  put(result, "os.version", platform.os_version);
  put(result, "os.features", platform.os_features);
  put(result, "variant", platform.variant);
  return result;
}

ordered_json print(const Descriptor& descriptor) {
  ordered_json result = ordered_json::object();
  put(result, "mediaType", descriptor.media_type);
  result["digest"] = descriptor.digest;
  result["size"] = descriptor.size;
  put(result, "urls", descriptor.urls);
  put(result, "annotations", descriptor.annotations);
  if (descriptor.platform) result["platform"] = print(*descriptor.platform);
  put(result, "artifactType", descriptor.artifact_type);
  return result;
}

ordered_json print_list(const std::vector<Descriptor>& list) {
  ordered_json result = ordered_json::array();
  for (const Descriptor& descriptor : list) result.push_back(print(descriptor));
  return result;
}

ordered_json print(const HealthConfig& health) {
  ordered_json result = ordered_json::object();
  put(result, "Test", health.test);
  if (health.interval.count() != 0) result["Interval"] = health.interval.count();
  if (health.timeout.count() != 0) result["Timeout"] = health.timeout.count();
  if (health.start_period.count() != 0) result["StartPeriod"] = health.start_period.count();
  if (health.start_interval.count() != 0) result["StartInterval"] = health.start_interval.count();
  if (health.retries != 0) result["Retries"] = health.retries;
  return result;
}

ordered_json print(const ImageRunConfig& config) {
  ordered_json result = ordered_json::object();
  put(result, "User", config.user);
  if (!config.exposed_ports.empty()) result["ExposedPorts"] = key_set(config.exposed_ports);
  put(result, "Env", config.env);
  put(result, "Entrypoint", config.entrypoint);
  put(result, "Cmd", config.cmd);
  if (!config.volumes.empty()) result["Volumes"] = key_set(config.volumes);
  put(result, "WorkingDir", config.working_dir);
  put(result, "Labels", config.labels);
  put(result, "StopSignal", config.stop_signal);
  if (config.stop_timeout) result["StopTimeout"] = *config.stop_timeout;
  if (config.healthcheck) result["Healthcheck"] = print(*config.healthcheck);
  put(result, "Shell", config.shell);
  put(result, "OnBuild", config.on_build);
  if (config.args_escaped) result["ArgsEscaped"] = true;
  return result;
}

ordered_json print(const HistoryEntry& entry) {
  ordered_json result = ordered_json::object();
  put(result, "created", entry.created);
  put(result, "created_by", entry.created_by);
  put(result, "author", entry.author);
  put(result, "comment", entry.comment);
  if (entry.empty_layer) result["empty_layer"] = true;
  return result;
}

/// Bytes that are not UTF-8 (labels of old images) must not make printing fail.
std::string dump(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

std::string go_architecture(std::string_view name) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 9> kNames = {{{"x86_64", "amd64"},
                                                                                           {"x86-64", "amd64"},
                                                                                           {"aarch64", "arm64"},
                                                                                           {"armv7l", "arm"},
                                                                                           {"armv6l", "arm"},
                                                                                           {"armhf", "arm"},
                                                                                           {"i386", "386"},
                                                                                           {"i686", "386"},
                                                                                           {"loongarch64", "loong64"}}};
  for (const auto& [theirs, ours] : kNames) {
    if (name == theirs) return std::string(ours);
  }
  return std::string(name);
}

}  // namespace

std::string Platform::str() const {
  return os + "/" + architecture + (variant.empty() ? std::string() : "/" + variant);
}

Platform parse_platform(std::string_view text) {
  const Strings parts = split(text, '/');
  const bool filled = std::none_of(parts.begin(), parts.end(), [](const std::string& part) { return part.empty(); });
  if (parts.empty() || parts.size() > 3 || !filled) {
    throw_usage("platform {}: must be OS/ARCH or OS/ARCH/VARIANT", kelp::quoted(text));
  }
  Platform result = host_platform();
  result.variant.clear();
  if (parts.size() == 1) {
    if (parts[0] == "linux") {
      result.os = parts[0];
    } else {
      result.architecture = go_architecture(parts[0]);
    }
    return result;
  }
  result.os = to_lower(parts[0]);
  result.architecture = go_architecture(to_lower(parts[1]));
  if (parts.size() == 3) result.variant = to_lower(parts[2]);
  if (parts[1] == "armhf" && result.variant.empty()) result.variant = "v7";
  return result;
}

Platform host_platform() {
  struct utsname name {};
  ::uname(&name);
  const std::string machine = name.machine;
  Platform result{.os = "linux", .architecture = go_architecture(machine)};
  if (machine == "armv7l") result.variant = "v7";
  if (machine == "armv6l") result.variant = "v6";
  return result;
}

bool is_index_type(std::string_view media_type) noexcept {
  return media_type == media::kIndex || media_type == media::kDockerList;
}

bool is_manifest_type(std::string_view media_type) noexcept {
  return media_type == media::kManifest || media_type == media::kDockerManifest;
}

bool is_layer_type(std::string_view media_type) noexcept {
  if (starts_with(media_type, "application/vnd.oci.image.layer.")) {
    return ends_with(media_type, ".tar") || ends_with(media_type, ".tar+gzip") || ends_with(media_type, ".tar+zstd");
  }
  return media_type == media::kDockerLayerGzip || media_type == media::kDockerLayerTar ||
         media_type == "application/vnd.docker.image.rootfs.diff.tar.zstd" ||
         media_type == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
}

bool is_index_document(std::string_view text, std::string_view media_type, std::string_view what) {
  const json value = load(text, what, kMaxDocumentBytes);
  const Place root(value, what, "");
  check_schema(root);
  const std::string inside = root.text("mediaType");
  // What the document says of itself wins over a header that a proxy may have made up.
  for (const std::string_view type : {std::string_view(inside), media_type}) {
    if (is_index_type(type)) return true;
    if (is_manifest_type(type)) return false;
  }
  if (root.find("manifests")) return true;
  if (root.find("config") && root.find("layers")) return false;
  root.fail("is neither an image manifest nor an image index");
}

bool is_artifact(const ImageManifest& manifest) {
  const std::string& config = manifest.config.media_type;
  return (!config.empty() && config != media::kConfig && config != media::kDockerConfig) ||
         std::any_of(manifest.layers.begin(), manifest.layers.end(),
                     [](const Descriptor& layer) { return !is_layer_type(layer.media_type); });
}

ImageIndex parse_index(std::string_view text, std::string_view what) {
  const json value = load(text, what, kMaxDocumentBytes);
  const Place root(value, what, "");
  check_schema(root);
  ImageIndex result;
  if (const std::string type = root.text("mediaType"); !type.empty()) {
    if (!is_index_type(type)) root.need("mediaType").fail(kelp::quoted(type) + " is not an image index");
    result.media_type = type;
  }
  if (root.find("layers")) root.need("layers").fail("an index has no layers");
  if (const auto manifests = root.find("manifests")) {
    manifests->each([&](const Place& entry) { result.manifests.push_back(read_descriptor(entry)); }, kMaxManifests);
  } else if (value.find("manifests") == value.end()) {
    root.fail("member \"manifests\" is missing");
  }
  result.annotations = root.map("annotations");
  return result;
}

ImageManifest parse_manifest(std::string_view text, std::string_view what) {
  const json value = load(text, what, kMaxDocumentBytes);
  const Place root(value, what, "");
  check_schema(root);
  ImageManifest result;
  if (const std::string type = root.text("mediaType"); !type.empty()) {
    if (!is_manifest_type(type)) root.need("mediaType").fail(kelp::quoted(type) + " is not an image manifest");
    result.media_type = type;
  }
  if (root.find("manifests")) root.need("manifests").fail("a manifest has no manifests");
  result.config = read_descriptor(root.need("config"));
  root.need("layers").each([&](const Place& entry) { result.layers.push_back(read_descriptor(entry)); }, kMaxLayers);
  result.annotations = root.map("annotations");
  result.artifact_type = root.text("artifactType");
  if (const auto subject = root.find("subject")) result.subject = read_descriptor(*subject);
  return result;
}

ImageConfig parse_image_config(std::string_view text, std::string_view what) {
  const json value = load(text, what, kMaxImageConfigBytes);
  const Place root(value, what, "");
  ImageConfig result;
  result.created = root.text("created");
  result.author = root.text("author");
  result.comment = root.text("comment");
  result.platform = read_platform(root);
  if (const auto config = root.find("config")) result.config = read_run_config(*config);
  const Place rootfs = root.need("rootfs");
  if (const std::string type = rootfs.text("type"); !type.empty() && type != "layers") {
    rootfs.need("type").fail("must be \"layers\"");
  }
  if (const auto ids = rootfs.find("diff_ids")) {
    ids->each(
        [&](const Place& entry) {
          const std::string digest = entry.text();
          if (!DigestName::parse(digest)) entry.fail("is not a digest: " + kelp::quoted(digest));
          result.diff_ids.push_back(digest);
        },
        kMaxLayers);
  }
  if (const auto history = root.find("history")) {
    history->each([&](const Place& entry) {
      result.history.push_back({.created = entry.text("created"),
                                .created_by = entry.text("created_by"),
                                .author = entry.text("author"),
                                .comment = entry.text("comment"),
                                .empty_layer = entry.boolean("empty_layer")});
    });
  }
  return result;
}

ImageRunConfig parse_run_config(std::string_view text, std::string_view what) {
  const json value = load(text, what, kMaxImageConfigBytes);
  return read_run_config(Place(value, what, ""));
}

std::string print_index(const ImageIndex& index) {
  ordered_json result = ordered_json::object();
  result["schemaVersion"] = 2;
  put(result, "mediaType", index.media_type);
  result["manifests"] = print_list(index.manifests);
  put(result, "annotations", index.annotations);
  return dump(result);
}

std::string print_manifest(const ImageManifest& manifest) {
  ordered_json result = ordered_json::object();
  result["schemaVersion"] = 2;
  put(result, "mediaType", manifest.media_type);
  put(result, "artifactType", manifest.artifact_type);
  result["config"] = print(manifest.config);
  result["layers"] = print_list(manifest.layers);
  if (manifest.subject) result["subject"] = print(*manifest.subject);
  put(result, "annotations", manifest.annotations);
  return dump(result);
}

std::string print_image_config(const ImageConfig& config) {
  ordered_json result = ordered_json::object();
  put(result, "created", config.created);
  put(result, "author", config.author);
  put(result, "comment", config.comment);
  result["architecture"] = config.platform.architecture;
  put(result, "variant", config.platform.variant);
  result["os"] = config.platform.os;
  put(result, "os.version", config.platform.os_version);
  put(result, "os.features", config.platform.os_features);
  result["config"] = print(config.config);
  result["rootfs"] = ordered_json::object({{"type", "layers"}, {"diff_ids", config.diff_ids}});
  if (!config.history.empty()) {
    ordered_json history = ordered_json::array();
    for (const HistoryEntry& entry : config.history) history.push_back(print(entry));
    result["history"] = std::move(history);
  }
  return dump(result);
}

std::string print_run_config(const ImageRunConfig& config) { return dump(print(config)); }

const Descriptor* choose_platform(const ImageIndex& index, const Platform& wanted) {
  // A lower number is better: the wanted variant, then what any machine of the architecture runs.
  const auto rank = [&](const Platform& offer) -> int {
    if (offer.os != wanted.os || offer.architecture != wanted.architecture) return -1;
    if (offer.variant == wanted.variant) return 0;
    if (wanted.variant.empty()) {
      if (wanted.architecture == "arm64") return offer.variant == "v8" ? 1 : -1;
      if (wanted.architecture == "amd64") return offer.variant == "v1" ? 1 : -1;
      if (wanted.architecture == "arm") return offer.variant == "v7" ? 1 : offer.variant == "v6" ? 2 : 3;
      return -1;
    }
    if (offer.variant.empty()) return 2;
    // arm v7 runs v6 and v5 code.
    if (wanted.architecture == "arm" && offer.variant < wanted.variant) return offer.variant == "v6" ? 3 : 4;
    return -1;
  };
  const Descriptor* best = nullptr;
  int best_rank = 0;
  for (const Descriptor& entry : index.manifests) {
    if (!entry.platform) continue;
    const int value = rank(*entry.platform);
    if (value >= 0 && (best == nullptr || value < best_rank)) {
      best = &entry;
      best_rank = value;
    }
  }
  return best;
}

}  // namespace kelp::spec
