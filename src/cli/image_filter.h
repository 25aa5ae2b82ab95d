#pragma once

#include <chrono>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "cli/commands.h"
#include "store/images.h"

namespace kelp::cli {

/// The time in the image's configuration; the epoch where it has none.
std::chrono::system_clock::time_point image_created(const store::ImageRecord& image);

/// "nginx", "library/nginx:1.25", "docker.io/library/nginx" and patterns with * against one full name.
bool name_fits(std::string_view full_name, std::string_view wanted);
/// As name_fits for any of the names and repositories.
bool image_name_fits(const store::ImageRecord& image, std::string_view wanted);

/// --filter of images and image prune. source: podman-images(1)
class ImageFilter {
 public:
  /// throws UsageError for an unknown key or value
  ImageFilter(Invocation& invocation, const Strings& conditions);
  [[nodiscard]] bool matches(const store::ImageRecord& image) const;

 private:
  struct Condition {
    std::string key, value;
    std::chrono::system_clock::time_point moment;
    std::set<std::string> ids;  ///< of the images that `wanted` is about
    bool wanted = false;
  };
  [[nodiscard]] static bool matches(const Condition& condition, const store::ImageRecord& image);
  std::vector<Condition> conditions_;
};

}  // namespace kelp::cli
