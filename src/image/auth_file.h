#pragma once

#include <string>
#include <vector>

#include "image/auth.h"

namespace kelp::image {

/// Which file `login` and `logout` write.
///
/// authfile  --authfile, REGISTRY_AUTH_FILE, else $XDG_RUNTIME_DIR/containers/auth.json, without a run directory
///           ~/.config/containers/auth.json
/// compat    --compat-auth-file: Docker's own format, keys as Docker writes them
struct AuthTarget {
  std::string path;
  bool compat = false;
};
AuthTarget auth_target(const std::string& authfile, const std::string& compat_file);

/// Keeps the credentials for a registry (or registry/namespace), everything else in the file stays. A credential helper
/// that the file names for the registry gets them instead. The file is replaced as a whole, mode 0600.
/// throws  Error naming the file or the helper
void store_credentials(const AuthTarget& target, const std::string& key, const Credentials& credentials);

/// Takes them away again; false when there were none.
bool erase_credentials(const AuthTarget& target, const std::string& key);
/// Takes every entry away.
void erase_all_credentials(const AuthTarget& target);

}  // namespace kelp::image
