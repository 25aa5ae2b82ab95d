#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kelp::spec {

/// A checked image name. registry and repository are never empty; tag and digest may be.
///
///     docker.io/library/nginx:1.25@sha256:…
///     registry  repository    tag  digest
///
/// source: distribution/reference grammar
struct ImageName {
  std::string registry;    ///< "docker.io", "localhost", "localhost:5000", "[::1]:5000"
  std::string repository;  ///< "library/nginx"
  std::string tag;         ///< "" = none given
  std::string digest;      ///< "sha256:…", "" = none

  /// registry/repository
  [[nodiscard]] std::string base() const { return registry + "/" + repository; }
  /// registry/repository[:tag][@digest]
  [[nodiscard]] std::string full() const;
  /// As full(), the tag "latest" added when there is neither tag nor digest.
  [[nodiscard]] ImageName tagged() const;

  auto operator<=>(const ImageName&) const = default;
};

/// Parses what a user types. A name without a registry ("nginx", "library/nginx", "me/app") belongs to
/// docker.io; "nginx" gets "library/". A first part is a registry when it holds '.' or ':' or is "localhost".
/// "docker://" in front is accepted.
/// throws UsageError naming the text and the rule it breaks
ImageName parse_image_name(std::string_view text);

/// true when the text names no registry, so that search registries and aliases apply.
bool is_short_name(std::string_view text);

/// Names to look for in the store, best first, for what a user typed, each tagged (unless it has a digest):
/// a short name may be localhost/NAME (built or imported here) or docker.io/[library/]NAME.
/// Empty when the text is not a valid name (it may still be an id).
std::vector<ImageName> local_candidates(std::string_view text);

/// For tagging things here: as parse_image_name, but a short name belongs to localhost, as in podman.
ImageName parse_local_name(std::string_view text);

/// Shortest spelling that means the same: docker.io/library/nginx:latest → "nginx:latest".
std::string familiar(const ImageName& name);

}  // namespace kelp::spec
