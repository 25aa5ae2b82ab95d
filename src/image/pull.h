#pragma once

#include <optional>
#include <string>
#include <vector>

#include "image/http.h"
#include "image/policy.h"
#include "image/progress.h"
#include "image/registry.h"
#include "spec/image_docs.h"
#include "spec/image_name.h"
#include "store/images.h"
#include "store/layers.h"
#include "store/layout.h"

namespace kelp::image {

struct PullRequest {
  std::string name;  ///< as the user typed it
  spec::Platform platform;
  std::string policy = "always";  ///< always, missing, newer
  bool all_tags = false;
  bool unpack = true;      ///< false: keep blobs only
  bool artifacts = false;  ///< what is no image is kept as it is; false: it is refused
  bool keep_blobs = true;  ///< false: layers that stand without their blobs are not fetched again
  RegistryOptions registry;
};

struct PullResult {
  std::vector<store::ImageRecord> images;  ///< one, or one per tag; an artifact has a digest only
  std::vector<std::string> names;          ///< the name asked for, in full, of each image
  std::vector<std::string> warnings;
};

/// The story of a pull: resolve the name, choose the manifest, read the configuration, bring the layers in, publish the
/// image. Nothing of the image is visible before its last step; blobs and layers that are complete stay for the next
/// try when a later step fails.
///
/// throws  Error "NAME: why"
PullResult pull(const store::Layout& layout, const store::IdMapping& map, Http& http, const RegistryPolicy& policy,
                const PullRequest& request, Progress& progress);

/// For an index that is made here: brings the blobs of an image (all: of every image of the index that the name leads
/// to) into the store without publishing an image or unpacking anything; returns entries with their platforms.
/// before  StoreUse is held
std::vector<spec::Descriptor> fetch_for_index(const store::Layout& layout, const store::IdMapping& map, Http& http,
                                              const RegistryPolicy& policy, const PullRequest& request, bool all,
                                              Progress& progress);

/// The manifest or index that a name leads to, as the registry has it; nothing is kept.
std::string fetch_document(const store::Layout& layout, const store::IdMapping& map, Http& http,
                           const RegistryPolicy& policy, const PullRequest& request, Progress& progress);

}  // namespace kelp::image
