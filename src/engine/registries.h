#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/images.h"

namespace kelp::engine {

/// How to talk to a registry; what push, search, login and manifest have in common.
struct RegistryAccess {
  std::string authfile;  ///< "" = the usual places
  std::string creds;     ///< "user[:password]", "" = none
  std::string cert_dir;  ///< "" = certs.d
  std::optional<bool> tls_verify;
  std::optional<unsigned> retry;
  std::string retry_delay;
};

struct PushOptions {
  RegistryAccess access;
  std::string format;              ///< "oci", "v2s2", "" = as kept
  std::string compression_format;  ///< "gzip", "zstd", "" = as kept
  std::optional<int> compression_level;
  bool force_compression = false;
  std::optional<bool> all;  ///< an index: with the images it names (the default)
};
/// `kelp push`, `kelp manifest push`. image: name or id, also of an index; destination "" = the name itself, else a
/// registry's name or oci:, oci-archive:, docker-archive:, dir: with a path. Returns the digest that is there now.
std::string push_image(Context& context, const std::string& image, const std::string& destination,
                       const PushOptions& options, const ProgressFn& progress = {});

struct LoginOptions {
  RegistryAccess access;
  std::string compat_auth_file;
  std::string user;
  std::optional<std::string> password;  ///< nullopt: try what is kept
};
struct LoginResult {
  std::string user;
  bool needed = false;  ///< no (working) credentials are kept: ask for them and call again
  bool kept = false;    ///< those that were kept still work
};
/// Checked with the registry before they are kept. throws Error when it does not take them
LoginResult login(Context& context, const std::string& registry, const LoginOptions& options);
/// The user that is logged in. throws Error when nobody is
std::string logged_in_user(Context& context, const std::string& registry, const LoginOptions& options);
/// registry "" = all of them. throws Error when there is nothing to take away
void logout(Context& context, const std::string& registry, const LoginOptions& options);

struct SearchHit {
  std::string registry, name, description;
  std::int64_t stars = 0;
  bool official = false, automated = false;
};
std::vector<SearchHit> search_images(Context& context, const std::string& term, const RegistryAccess& access,
                                     unsigned limit);
/// (repository, tag)
std::vector<std::pair<std::string, std::string>> list_tags(Context& context, const std::string& repository,
                                                           const RegistryAccess& access, unsigned limit);

struct ManifestOptions {
  RegistryAccess access;
  std::vector<std::string> annotations;  ///< KEY=VALUE
  std::string os, arch, variant;
  bool all = false, amend = false;
};
/// create LIST [IMAGE…], add LIST IMAGE…, annotate LIST IMAGE, remove LIST DIGEST: the index's new digest.
/// inspect NAME: the document, indented.
std::string edit_manifest_list(Context& context, const std::string& operation, const std::vector<std::string>& words,
                               const ManifestOptions& options, const ProgressFn& progress = {});

}  // namespace kelp::engine
