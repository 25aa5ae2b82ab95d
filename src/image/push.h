#pragma once

#include <string>

#include "image/http.h"
#include "image/outgoing.h"
#include "image/policy.h"
#include "image/progress.h"
#include "image/registry.h"
#include "spec/image_name.h"
#include "store/layout.h"

namespace kelp::image {

/// Sends images from the store to one repository of a registry: blobs first, several at a time, what is there already
/// (or in a repository of the same registry that the store knows of) is not sent; then manifests, an index last.
class Pusher {
 public:
  /// throws  Error when the registry is blocked in registries.conf
  Pusher(const store::Layout& layout, Http& http, const RegistryPolicy& policy, const spec::ImageName& target,
         RegistryOptions options, Progress& progress);

  /// The image goes to the target's tag (or, without one, is known by its digest alone).
  /// returns  digest of what is there now
  std::string push_image(const std::string& manifest_digest, const OutgoingOptions& options);
  /// An index with (all) or without the images it names.
  std::string push_index(const std::string& index_text, const std::string& media_type, bool all,
                         const OutgoingOptions& options);

 private:
  void send(OutgoingImage& image, const std::string& reference);
  void send_blobs(const OutgoingImage& image);
  [[nodiscard]] std::vector<std::string> neighbours(const DigestName& blob) const;

  const store::Layout& layout_;
  Progress& progress_;
  spec::ImageName target_;
  std::map<std::string, std::vector<std::string>> known_;  ///< blob → other repositories of this registry
  Registry registry_;
};

/// From the options authfile, creds, cert-dir and tls-verify, which several verbs have.
struct VerbRequest;
class Arguments;
RegistryOptions registry_options(const Arguments& arguments);
/// From retry and retry-delay. throws UsageError
HttpOptions http_options(const Arguments& arguments);

}  // namespace kelp::image
