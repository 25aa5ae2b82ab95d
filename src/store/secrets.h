#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/container_record.h"
#include "store/layout.h"

/// Secrets: secrets/<name>/{secret.json,data}, all of it for the owner alone (0700, 0600), published by rename. The
/// value is in `data` and nowhere else; a container gets a copy when it is made.
namespace kelp::store {

inline constexpr size_t kMaxSecret = 512000;  ///< bytes, as podman and docker

struct SecretRecord {
  std::string name;
  std::string id;  ///< 25 hex digits
  std::string driver = "file";
  StringMap labels, driver_options;
  std::chrono::system_clock::time_point created, updated;
};

struct SecretCreation {
  std::string name, value;
  StringMap labels, driver_options;
  bool replace = false, ignore = false;
};
/// throws UsageError: bad name, too large, empty, already there
SecretRecord create_secret(const Layout& layout, const SecretCreation& request);
/// By name, id or unique id prefix.
std::optional<SecretRecord> find_secret(const Layout& layout, std::string_view name_or_id);
SecretRecord get_secret(const Layout& layout, std::string_view name_or_id);
std::vector<SecretRecord> list_secrets(const Layout& layout);
std::string read_secret(const Layout& layout, const SecretRecord& secret);
void remove_secret(const Layout& layout, const SecretRecord& secret);

}  // namespace kelp::store
