#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spec/image_name.h"

namespace kelp::image {

struct Mirror {
  std::string location;  ///< host[:port][/path]
  bool insecure = false;
  std::string pull_from = "all";  ///< all, digest-only, tag-only
};

/// One [[registry]] table.
struct RegistryRule {
  std::string prefix;    ///< what it applies to: host[:port][/path…] or "*.domain"
  std::string location;  ///< where those images really are
  bool insecure = false, blocked = false, mirror_by_digest_only = false;
  std::vector<Mirror> mirrors;
};

/// One place to ask for an image, after the rules were applied.
struct PullSource {
  spec::ImageName name;  ///< registry and repository to talk to
  bool insecure = false;
  bool mirror = false;
};

enum class ShortNameMode { disabled, permissive, enforcing };

/// registries.conf (version 2; version 1 is understood) with its drop-in directories.
/// source: containers-registries.conf(5)
class RegistryPolicy {
 public:
  /// What a system without any file has: search in docker.io.
  RegistryPolicy() = default;

  /// CONTAINERS_REGISTRIES_CONF, else the user's registries.conf, else /etc's, else /usr/share's; then
  /// /etc/containers/registries.conf.d/*.conf and the user's, in the order of their names; then the aliases that tools
  /// recorded for the user. throws Error naming file and line
  static RegistryPolicy load();

  /// Adds one file; what it says wins over what was there. what: its name in errors
  void add(std::string_view toml, const std::string& what);

  /// The full names to try for what a user typed, best first; one for a name with a registry. Each has a tag or digest.
  /// throws UsageError when the short name may mean several things and may not be guessed (short-name-mode enforcing)
  [[nodiscard]] std::vector<spec::ImageName> resolve(std::string_view text) const;

  /// Where to get an image, mirrors first. throws Error when its registry is blocked
  [[nodiscard]] std::vector<PullSource> sources(const spec::ImageName& name) const;

  /// The rule with the longest prefix that the name is in; nullptr = none.
  [[nodiscard]] const RegistryRule* rule_for(const spec::ImageName& name) const;

  [[nodiscard]] const std::vector<std::string>& search_registries() const noexcept { return search_; }
  [[nodiscard]] const std::vector<RegistryRule>& rules() const noexcept { return rules_; }

 private:
  void add_aliases(std::string_view toml, const std::string& what);

  std::vector<std::string> search_{"docker.io"};
  std::map<std::string, std::string, std::less<>> aliases_;
  std::vector<RegistryRule> rules_;
  ShortNameMode mode_ = ShortNameMode::permissive;
};

/// Host without port is 127.0.0.0/8, ::1 or localhost.
bool is_loopback_host(std::string_view registry);

/// Extra CA certificates (PEM text) and the client certificate for a registry.
struct RegistryCertificates {
  std::string ca_pem;
  std::string client_cert, client_key;  ///< paths
};
/// From cert_dir alone where given, else the first of ~/.config/containers/certs.d/HOST,
/// /etc/containers/certs.d/HOST, /etc/docker/certs.d/HOST that exists. source: containers-certs.d(5)
RegistryCertificates registry_certificates(const std::string& registry, const std::string& cert_dir);

}  // namespace kelp::image
