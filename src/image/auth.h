#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kelp::image {

struct Credentials {
  std::string user, password;
  std::string identity_token;  ///< OAuth2 refresh token; used instead of the password where it is set
};

/// Where credentials may come from. Empty members: the usual places.
struct AuthSources {
  std::string authfile;  ///< --authfile: this file alone
  std::string creds;     ///< --creds user[:password]: wins over every file
};

/// Files that are looked at, in order: --authfile alone, or REGISTRY_AUTH_FILE alone, or
/// $XDG_RUNTIME_DIR/containers/auth.json, ~/.config/containers/auth.json, ~/.docker/config.json.
std::vector<std::string> auth_files(const AuthSources& sources);

/// Credentials for registry/repository: the most specific entry of the first file that has one; credential helpers
/// (credHelpers, credsStore) are asked where a file names them. nullopt = anonymous.
///
/// throws  Error naming a file that is no JSON, UsageError for an --authfile that is not there
/// before  the process has one thread (helpers are spawned)
/// source  containers-auth.json(5)
std::optional<Credentials> find_credentials(const AuthSources& sources, const std::string& registry,
                                            const std::string& repository);

/// Credentials for registry/repository in the text of one auth.json; nullopt when it has none.
/// helper  set to the suffix of the credential helper that should be asked instead, "" = none
std::optional<Credentials> credentials_in(std::string_view json, std::string_view what, const std::string& registry,
                                          const std::string& repository, std::string& helper);

/// One challenge of a WWW-Authenticate header. source: RFC 9110, 11.6.1
struct Challenge {
  std::string scheme;  ///< lower case: "bearer", "basic"
  std::map<std::string, std::string> parameters;
};
/// Malformed parts are left out.
std::vector<Challenge> parse_challenges(std::string_view header);

/// "Basic dXNlcjpwYXNz"
std::string basic_authorization(const Credentials& credentials);

}  // namespace kelp::image
