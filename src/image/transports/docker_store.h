#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "image/transports/foreign_image.h"

namespace kelp::image {

/// Docker's own image store (graph drivers overlay2, fuse-overlayfs and vfs), read where it lies while no daemon is
/// asked. It keeps configurations and recipes of the layers' tars, but no manifests.
class DockerStore {
 public:
  /// root  "" = rootless Docker's below the caller's home; of root: /var/lib/docker
  /// throws Error where there is no such store, or one that containerd keeps
  explicit DockerStore(const std::string& root);

  [[nodiscard]] const std::string& root() const noexcept { return root_; }
  /// Hex ids of all images.
  [[nodiscard]] std::vector<std::string> image_ids() const;
  [[nodiscard]] ForeignImage find(const std::string& id) const;

 private:
  [[nodiscard]] std::string images() const { return root_ + "/image/" + driver_; }
  void read_names();

  std::string root_, driver_;
  std::map<std::string, std::vector<std::string>> names_, repos_;  ///< by id
};

}  // namespace kelp::image
