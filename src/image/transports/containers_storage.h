#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "image/transports/foreign_image.h"
#include "spec/image_docs.h"

namespace kelp::image {

/// "containers-storage:[overlay@/srv/containers+/run/x]nginx:latest" taken apart.
struct StorageName {
  std::string driver;  ///< "" = not given
  std::string root;    ///< "" = the caller's own store
  std::string image;   ///< name, name@digest, id, or "@id"; "" = the store itself is meant
};
/// text  without "containers-storage:". throws UsageError for a bracket that is not closed, or a root that is not
/// absolute. The run directory and the options between the brackets change nothing for a reader.
/// source  containers-transports(5)
StorageName parse_storage_name(std::string_view text);

/// The image store of podman, buildah, skopeo and CRI-O, read where it lies. Nothing in it is locked or written: its
/// lists are replaced by rename, a layer once there never changes, and a file that is taken away meanwhile is an error.
/// Files of subordinate ids are read from within the user namespace that the store was filled in.
class ContainersStorage {
 public:
  /// The store that was named, else the caller's as storage.conf(5) and its environment say; in the latter case also
  /// the additional stores. throws Error where there is none, or one of a driver that keeps no directories
  explicit ContainersStorage(const StorageName& name);

  /// Directory of the (first) store.
  [[nodiscard]] const std::string& root() const noexcept { return stores_.front().root; }
  [[nodiscard]] const std::string& driver() const noexcept { return stores_.front().driver; }
  /// The image that a name, digest or id stands for; an index: the one for `platform`.
  /// throws  Error "there is no image … in …", UsageError for an id prefix that fits several
  [[nodiscard]] ForeignImage find(const std::string& image, const spec::Platform& platform) const;
  /// Ids of all images.
  [[nodiscard]] std::vector<std::string> image_ids() const;

 private:
  struct Image {
    std::string id, digest, top_layer, directory;
    std::vector<std::string> names, documents;
  };
  struct Layer {
    std::string id, parent, diff_id;
    std::uint64_t size = 0;
    std::string recipe, tree;
  };
  struct Store {
    std::string root, driver;
    std::vector<Image> images;
    std::vector<Layer> layers;
  };
  static Store read_store(std::string root, const std::string& wanted_driver);
  static std::vector<Image> read_images(const Store& store);
  static std::vector<Layer> read_layers(const Store& store);
  [[nodiscard]] const Image* image_by_name(const std::string& text) const;
  [[nodiscard]] const Image* image_by_id(const std::string& text) const;
  [[nodiscard]] const Image* image_by_digest(const std::string& digest) const;
  [[nodiscard]] const Layer& layer(const std::string& id) const;
  [[nodiscard]] static std::optional<std::string> document(const Image& image, const std::string& key, size_t max);
  [[nodiscard]] ForeignImage assemble(const Image& image, const spec::Platform& platform, unsigned depth) const;

  std::vector<Store> stores_;
};

/// Where a user's podman keeps its store, by storage.conf(5): first the store itself, then additional ones.
struct StorageConfig {
  std::string driver;  ///< "" = by what is there
  std::string root;
  std::vector<std::string> additional;
};
/// own_uid  outside of our user namespace: 0 has the system's store
StorageConfig load_storage_config(unsigned own_uid);

}  // namespace kelp::image
