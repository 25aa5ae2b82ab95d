#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kelp::image {

/// A layer as another engine's store keeps it: unpacked, with the recipe of its tar (see tar_split.h).
struct ForeignLayer {
  std::string diff_id;     ///< "sha256:…"
  std::uint64_t size = 0;  ///< of the tar; 0 = not known
  std::string recipe;      ///< path of the tar-split file, gzip
  std::string tree;        ///< path of the directory that it was unpacked into
};

/// An image in the store of another engine. Its documents are not checked yet.
struct ForeignImage {
  std::string id;             ///< hex of the configuration's digest, as that store calls it
  std::string manifest_text;  ///< "" = that store keeps none
  std::string config_text;
  std::vector<std::string> names;    ///< full names "docker.io/library/nginx:latest"
  std::vector<std::string> repos;    ///< repositories that it came from by digest
  std::vector<std::string> digests;  ///< these, each with the digest: "docker.io/library/nginx@sha256:…"
  std::vector<ForeignLayer> layers;  ///< base first
};

}  // namespace kelp::image
