#include "image/transports/containers_storage.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <set>

#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/digest_name.h"
#include "base/error.h"
#include "base/text.h"
#include "base/toml.h"
#include "spec/image_name.h"
#include "sys/caller_id.h"
#include "sys/idmap.h"
#include "sys/lock.h"
#include "sys/safe_path.h"

namespace kelp::image {

namespace {

using nlohmann::json;

constexpr size_t kMaxList = 256 << 20;  ///< images.json, layers.json
constexpr size_t kMaxConfigFile = 1 << 20;
constexpr unsigned kMaxNesting = 2;
/// Drivers that keep each layer as a directory of files.
constexpr const char* kDrivers[] = {"overlay", "vfs"};
constexpr const char* kOtherDrivers[] = {"btrfs", "zfs", "aufs", "devmapper"};

std::string environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? "" : value;
}

/// $HOME, ${HOME} and the like, as in storage.conf; $UID is no variable of the environment.
std::string expanded(const std::string& path, unsigned uid) {
  std::string result;
  for (size_t at = 0; at < path.size();) {
    if (path[at] != '$') {
      result += path[at++];
      continue;
    }
    const bool braced = at + 1 < path.size() && path[at + 1] == '{';
    const size_t start = at + (braced ? 2 : 1);
    size_t end = start;
    while (end < path.size() && (std::isalnum(static_cast<unsigned char>(path[end])) != 0 || path[end] == '_')) ++end;
    const std::string name = path.substr(start, end - start);
    result += name == "UID" ? std::to_string(uid) : environment(name);
    at = braced && end < path.size() && path[end] == '}' ? end + 1 : end;
  }
  return result;
}

/// One storage.conf on top of what those before it said. system: its graphroot is root's.
void read_config(const std::string& path, bool system, unsigned uid, StorageConfig& config) {
  const auto text = sys::read_small_file(path, kMaxConfigFile);
  if (!text) return;
  try {
    const toml::table top = toml::parse(*text, path);
    const auto storage = top["storage"];
    if (const auto driver = storage["driver"].value<std::string>(); driver && !driver->empty()) config.driver = *driver;
    const auto root = storage["graphroot"].value<std::string>();
    if (root && !root->empty() && (uid == 0 || !system)) config.root = expanded(*root, uid);
    const auto rootless = storage["rootless_storage_path"].value<std::string>();
    if (rootless && !rootless->empty() && uid != 0) config.root = expanded(*rootless, uid);
    if (const toml::array* stores = storage["options"]["additionalimagestores"].as_array()) {
      config.additional.clear();
      for (const toml::node& store : *stores)
        if (const auto one = store.value<std::string>()) config.additional.push_back(expanded(*one, uid));
    }
  } catch (const toml::parse_error& error) {
    throw_error("{}: line {}: {}", path, error.source().begin.line, printable(error.description()));
  }
}

/// containers/storage gives a key that is no plain lower-case name a file name in base64.
std::string file_name_of(const std::string& key) {
  const bool plain = std::all_of(key.begin(), key.end(),
                                 [](char c) { return c == '.' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z'); });
  return plain ? key : "=" + base64_encode(key);
}

std::string text_at(const json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? "" : found->get<std::string>();
}

std::vector<std::string> texts_at(const json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? std::vector<std::string>{}
                                                   : found->get<std::vector<std::string>>();
}

/// A list of that store, taken apart by `take`, one object after the other.
template <typename Take>
void each_in_list(const std::string& path, const Take& take) {
  const auto text = sys::read_small_file(path, kMaxList);
  if (!text) return;
  try {
    for (const json& object : json::parse(*text)) take(object);
  } catch (const json::exception& error) {
    throw_error("{}: damaged: {}", path, error.what());
  }
}

bool is_directory(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

/// Ids become parts of paths.
bool is_plain_id(std::string_view id) {
  return !id.empty() && id.size() <= 128 && id.front() != '.' && id.find('/') == std::string_view::npos;
}

}  // namespace

StorageName parse_storage_name(std::string_view text) {
  StorageName name;
  if (!starts_with(text, "[")) {
    name.image = text;
    return name;
  }
  const size_t end = text.find(']');
  if (end == std::string_view::npos) throw_usage("{}: the bracket is not closed", kelp::quoted(text));
  std::string_view store = text.substr(1, end - 1);
  name.image = text.substr(end + 1);
  if (const size_t at = store.find('@'); at != std::string_view::npos) {
    name.driver = store.substr(0, at);
    store.remove_prefix(at + 1);
  }
  name.root = store.substr(0, store.find_first_of("+:"));
  if (!starts_with(name.root, "/"))
    throw_usage("{}: the store's directory must be an absolute path", kelp::quoted(text));
  return name;
}

StorageConfig load_storage_config(unsigned uid) {
  StorageConfig config;
  if (uid == 0) {
    config.root = "/var/lib/containers/storage";
  } else if (const std::string data = environment("XDG_DATA_HOME"); starts_with(data, "/")) {
    config.root = data + "/containers/storage";
  } else {
    config.root = environment("HOME") + "/.local/share/containers/storage";
  }
  const std::string named = environment("CONTAINERS_STORAGE_CONF");
  if (!named.empty()) {
    read_config(named, uid == 0, uid, config);
  } else {
    const bool changed = ::access("/etc/containers/storage.conf", F_OK) == 0;
    read_config(changed ? "/etc/containers/storage.conf" : "/usr/share/containers/storage.conf", true, uid, config);
    const std::string base = environment("XDG_CONFIG_HOME");
    if (uid != 0)
      read_config((starts_with(base, "/") ? base : environment("HOME") + "/.config") + "/containers/storage.conf",
                  false, uid, config);
  }
  if (const std::string driver = environment("STORAGE_DRIVER"); !driver.empty()) config.driver = driver;
  return config;
}

ContainersStorage::ContainersStorage(const StorageName& name) {
  if (!name.root.empty()) {
    stores_.push_back(read_store(sys::clean_path(name.root), name.driver));
    return;
  }
  const StorageConfig config = load_storage_config(sys::own_uid_outside());
  stores_.push_back(read_store(sys::clean_path(config.root), name.driver.empty() ? config.driver : name.driver));
  for (const std::string& root : config.additional) stores_.push_back(read_store(sys::clean_path(root), ""));
}

ContainersStorage::Store ContainersStorage::read_store(std::string root, const std::string& wanted_driver) {
  Store store;
  store.root = std::move(root);
  const auto there = [&](const std::string& driver) { return is_directory(store.root + "/" + driver + "-images"); };
  if (!wanted_driver.empty() &&
      std::find(std::begin(kDrivers), std::end(kDrivers), wanted_driver) == std::end(kDrivers))
    throw Error(fmt::format("the store {}: its driver {} is not read here (overlay and vfs are)", store.root,
                            kelp::quoted(wanted_driver)))
        .with_hint("podman save --format oci-archive -o FILE IMAGE, then kelp load -i FILE");
  if (!wanted_driver.empty() && there(wanted_driver)) store.driver = wanted_driver;
  for (const char* driver : kDrivers)
    if (store.driver.empty() && there(driver)) store.driver = driver;
  for (const char* driver : kOtherDrivers)
    if (store.driver.empty() && there(driver)) return read_store(std::move(store.root), driver);  // refused
  if (store.driver.empty()) {
    if (::access(store.root.c_str(), R_OK | X_OK) < 0 && errno != ENOENT) throw_errno("open the store {}", store.root);
    throw Error(fmt::format("{}: there is no image store of podman", store.root))
        .with_hint("containers-storage:[overlay@/path/of/the/store]NAME names another one");
  }
  store.images = read_images(store);
  store.layers = read_layers(store);
  return store;
}

std::vector<ContainersStorage::Image> ContainersStorage::read_images(const Store& store) {
  std::vector<Image> images;
  const std::string directory = store.root + "/" + store.driver + "-images";
  each_in_list(directory + "/images.json", [&](const json& object) {
    Image image;
    image.id = text_at(object, "id");
    if (!is_plain_id(image.id)) return;
    image.digest = text_at(object, "digest");
    image.top_layer = text_at(object, "layer");
    image.names = texts_at(object, "names");
    image.documents = texts_at(object, "big-data-names");
    image.directory = directory + "/" + image.id;
    images.push_back(std::move(image));
  });
  return images;
}

std::vector<ContainersStorage::Layer> ContainersStorage::read_layers(const Store& store) {
  std::vector<Layer> layers;
  const std::string directory = store.root + "/" + store.driver + "-layers";
  each_in_list(directory + "/layers.json", [&](const json& object) {
    Layer layer;
    layer.id = text_at(object, "id");
    if (!is_plain_id(layer.id)) return;
    const auto flags = object.find("flags");
    if (flags != object.end() && flags->is_object() && flags->contains("incomplete")) return;
    layer.parent = text_at(object, "parent");
    layer.diff_id = text_at(object, "diff-digest");
    if (const auto size = object.find("diff-size"); size != object.end() && size->is_number_unsigned())
      layer.size = size->get<std::uint64_t>();
    layer.recipe = directory + "/" + layer.id + ".tar-split.gz";
    layer.tree = store.driver == "vfs" ? store.root + "/vfs/dir/" + layer.id
                                       : store.root + "/" + store.driver + "/" + layer.id + "/diff";
    layers.push_back(std::move(layer));
  });
  return layers;
}

std::optional<std::string> ContainersStorage::document(const Image& image, const std::string& key, size_t max) {
  return sys::read_small_file(image.directory + "/" + file_name_of(key), max);
}

const ContainersStorage::Image* ContainersStorage::image_by_digest(const std::string& digest) const {
  for (const Store& store : stores_) {
    for (const Image& image : store.images) {
      const auto& kept = image.documents;
      if (image.digest == digest || std::find(kept.begin(), kept.end(), "manifest-" + digest) != kept.end())
        return &image;
    }
  }
  return nullptr;
}

const ContainersStorage::Image* ContainersStorage::image_by_name(const std::string& text) const {
  for (const spec::ImageName& candidate : spec::local_candidates(text)) {
    const std::string full = candidate.full();
    for (const Store& store : stores_) {
      for (const Image& image : store.images) {
        const auto& names = image.names;
        if (std::find(names.begin(), names.end(), full) != names.end()) return &image;
        if (candidate.digest.empty() || image_by_digest(candidate.digest) != &image) continue;
        const std::string base = candidate.base();
        const bool ours = std::any_of(names.begin(), names.end(), [&](const std::string& name) {
          return starts_with(name, base + ":") || starts_with(name, base + "@");
        });
        if (ours) return &image;
      }
    }
  }
  return nullptr;
}

const ContainersStorage::Image* ContainersStorage::image_by_id(const std::string& text) const {
  const std::string_view hex = starts_with(text, "sha256:") ? std::string_view(text).substr(7) : text;
  if (!is_id_prefix(hex)) return nullptr;
  if (starts_with(text, "sha256:"))
    if (const Image* image = image_by_digest(text)) return image;
  const Image* found = nullptr;
  for (const Store& store : stores_) {
    for (const Image& image : store.images) {
      if (!starts_with(image.id, hex)) continue;
      if (found != nullptr && found->id != image.id)
        throw_usage("image id {} is ambiguous: it fits {} and {}", kelp::quoted(text), found->id.substr(0, 12),
                    image.id.substr(0, 12));
      if (found == nullptr) found = &image;
    }
  }
  return found;
}

const ContainersStorage::Layer& ContainersStorage::layer(const std::string& id) const {
  for (const Store& store : stores_) {
    for (const Layer& layer : store.layers)
      if (layer.id == id) return layer;
  }
  throw_error("{}: layer {} is missing there", root(), printable(id.substr(0, 12)));
}

ForeignImage ContainersStorage::assemble(const Image& image, const spec::Platform& platform, unsigned depth) const {
  const auto manifest = document(image, "manifest", spec::kMaxDocumentBytes);
  const std::string what = fmt::format("{}: image {}", root(), image.id.substr(0, 12));
  if (!manifest) throw_error("{}: it has no manifest there", what);
  if (spec::is_index_document(*manifest, "", what)) {
    const spec::ImageIndex index = spec::parse_index(*manifest, what);
    const spec::Descriptor* chosen = spec::choose_platform(index, platform);
    if (chosen == nullptr) throw_error("{}: no image for {} in the index", what, platform.str());
    const Image* inner = image_by_digest(chosen->digest);
    if (inner == nullptr || depth >= kMaxNesting)
      throw_error("{}: {}, which the index names, is not there", what, chosen->digest);
    ForeignImage found = assemble(*inner, platform, depth + 1);
    found.names = image.names;
    return found;
  }
  ForeignImage found;
  found.id = image.id;
  found.manifest_text = *manifest;
  const std::string config = spec::parse_manifest(*manifest, what).config.digest;
  auto text = document(image, config, spec::kMaxImageConfigBytes);
  if (!text) throw_error("{}: its configuration {} is not there", what, config);
  found.config_text = std::move(*text);
  found.names = image.names;
  std::set<std::string> seen;
  for (std::string id = image.top_layer; !id.empty();) {
    const Layer& part = layer(id);
    if (!seen.insert(id).second) throw_error("{}: its layers stand on themselves", what);
    found.layers.push_back({.diff_id = part.diff_id, .size = part.size, .recipe = part.recipe, .tree = part.tree});
    id = part.parent;
  }
  std::reverse(found.layers.begin(), found.layers.end());
  return found;
}

ForeignImage ContainersStorage::find(const std::string& text, const spec::Platform& platform) const {
  std::string name = text;
  // "name@id": the id says which image, the name what it is called here.
  const size_t at = text.rfind('@');
  const Image* image = nullptr;
  if (at != std::string::npos && is_full_id(std::string_view(text).substr(at + 1))) {
    image = image_by_id(text.substr(at + 1));
    name = text.substr(0, at);
  } else if (at == 0) {
    image = image_by_id(text.substr(1));
    name.clear();
  } else {
    image = image_by_name(text);
    if (image == nullptr && (image = image_by_id(text)) != nullptr) name.clear();
  }
  if (image == nullptr) {
    Error error(fmt::format("there is no image {} in {}", kelp::quoted(text), root()));
    std::vector<std::string> known;
    for (const Store& store : stores_)
      for (const Image& one : store.images) known.insert(known.end(), one.names.begin(), one.names.end());
    if (const std::string near = nearest(text, known); !near.empty()) error.with_hint("did you mean " + near + "?");
    throw error;
  }
  ForeignImage found = assemble(*image, platform, 0);
  std::vector<std::string> names;
  // By name: that name. By id: all that the image has there.
  for (const std::string& one : name.empty() ? found.names : std::vector<std::string>{name}) {
    std::string full = one;
    for (const spec::ImageName& candidate : spec::local_candidates(one)) {
      const std::string wanted = candidate.full();
      const auto& known = image->names;
      if (std::find(known.begin(), known.end(), wanted) != known.end()) {
        full = wanted;
        break;
      }
    }
    const spec::ImageName parsed = spec::parse_local_name(full);
    if (parsed.digest.empty()) {
      names.push_back(parsed.tagged().full());
    } else {
      found.repos.push_back(parsed.base());
      found.digests.push_back(parsed.base() + "@" + parsed.digest);
    }
  }
  found.names = std::move(names);
  return found;
}

std::vector<std::string> ContainersStorage::image_ids() const {
  std::vector<std::string> ids;
  for (const Store& store : stores_)
    for (const Image& image : store.images) ids.push_back(image.id);
  return ids;
}

}  // namespace kelp::image
