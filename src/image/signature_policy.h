#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "spec/image_name.h"

namespace kelp::image {

/// policy.json: which images may be taken in. Signatures cannot be checked here, so a requirement of one refuses the
/// image and says so; it is never passed over.
/// source: containers-policy.json(5)
class SignaturePolicy {
 public:
  /// ~/.config/containers/policy.json, else /etc/containers/policy.json; without either everything is accepted, as
  /// Docker does. throws Error naming the file and what is wrong in it
  static SignaturePolicy load();
  static SignaturePolicy parse(std::string_view json, const std::string& what);

  /// throws Error where the policy rejects the image, or wants a signature of it
  void check(const spec::ImageName& name) const;
  /// For transports of files: "docker-archive", "oci", "dir" with the path.
  void check(const std::string& transport, const std::string& path) const;
  /// For an image of a store of containers/storage, by its full name ("" = none).
  void check_stored(const std::string& driver, const std::string& root, const std::string& name) const;

 private:
  using Requirements = std::vector<std::string>;  ///< the types, in order
  using Scopes = std::map<std::string, Requirements>;
  void apply(const std::string& transport, const std::vector<std::string>& scopes, const std::string& image) const;

  std::string what_;
  Requirements default_;
  std::map<std::string, Scopes> transports_;
};

}  // namespace kelp::image
