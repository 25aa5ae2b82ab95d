// The verbs login and logout. Passwords come over standard input: an argument list can be read by everybody.
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"
#include "image/auth_file.h"
#include "image/push.h"
#include "image/verbs.h"
#include "spec/image_name.h"
#include "sys/lock.h"

namespace kelp::image {

namespace {

constexpr size_t kMaxPassword = 64 << 10;

/// "https://quay.io/team/" → "quay.io/team". throws UsageError
std::string login_key(const std::string& word) {
  std::string_view text = word;
  for (const std::string_view scheme : {"https://", "http://"}) {
    if (starts_with(text, scheme)) text.remove_prefix(scheme.size());
  }
  while (ends_with(text, "/")) text.remove_suffix(1);
  if (text.empty() || text.find_first_of(" @\t\n") != std::string_view::npos) {
    throw_usage("{}: not the name of a registry", kelp::quoted(word));
  }
  if (text == "index.docker.io" || text == "registry-1.docker.io" || text == "index.docker.io/v1") return "docker.io";
  return std::string(text);
}

/// Credentials that are kept in the target file, also by a helper.
std::optional<Credentials> kept(const AuthTarget& target, const std::string& key) {
  if (::access(target.path.c_str(), F_OK) != 0) return std::nullopt;
  const size_t slash = key.find('/');
  return find_credentials({.authfile = target.path, .creds = ""}, key.substr(0, slash),
                          slash == std::string::npos ? "" : key.substr(slash + 1));
}

}  // namespace

/// login REGISTRY [--username U]: password on stdin; an empty one means "those that are kept".
std::string verb_login(VerbRequest& request) {
  const Arguments& arguments = request.arguments;
  arguments.need_positional(1, 1);
  const std::string key = login_key(arguments.positional[0]);
  const AuthTarget target =
      auth_target(arguments.value("authfile").value_or(""), arguments.value("compat-auth-file").value_or(""));
  if (arguments.flag("get-login")) {
    const auto credentials = kept(target, key);
    if (!credentials) throw_error("not logged into {}", key);
    return nlohmann::ordered_json{{"user", credentials->user}}.dump();
  }
  Credentials credentials;
  credentials.user = arguments.value("username").value_or("");
  credentials.password = sys::read_rest(0, "standard input", kMaxPassword);
  const bool again = credentials.password.empty();
  if (again) {
    const auto found = kept(target, key);
    if (!found || (!credentials.user.empty() && credentials.user != found->user)) {
      return nlohmann::ordered_json{{"user", ""}, {"needed", true}}.dump();
    }
    credentials = *found;
  }
  if (credentials.user.empty()) throw_usage("the user name is missing");
  spec::ImageName name;
  name.registry = key.substr(0, key.find('/'));
  PullSource source{.name = name, .insecure = false, .mirror = false};
  const RegistryPolicy policy = RegistryPolicy::load();
  spec::ImageName probe = name;
  probe.repository = "x";
  probe.tag = "latest";
  if (const RegistryRule* rule = policy.rule_for(probe)) source.insecure = rule->insecure;
  RegistryOptions options = registry_options(arguments);
  options.auth.authfile.clear();
  options.auth.creds = credentials.user + ":" + credentials.password;
  Http http(http_options(arguments));
  Registry registry(http, source, options);
  try {
    registry.check_access();
  } catch (const HttpError&) {
    throw;
  } catch (const Error& error) {
    if (again) return nlohmann::ordered_json{{"user", credentials.user}, {"needed", true}}.dump();
    throw Error(fmt::format("log in to {}: {}", key, error.message()));
  }
  if (!again) store_credentials(target, key, credentials);
  return nlohmann::ordered_json{{"user", credentials.user}, {"kept", again}, {"file", target.path}}.dump();
}

std::string verb_logout(VerbRequest& request) {
  const Arguments& arguments = request.arguments;
  const bool all = arguments.flag("all");
  arguments.need_positional(all ? 0 : 1, all ? 0 : 1);
  const AuthTarget target =
      auth_target(arguments.value("authfile").value_or(""), arguments.value("compat-auth-file").value_or(""));
  if (all) {
    erase_all_credentials(target);
    return "{}";
  }
  const std::string key = login_key(arguments.positional[0]);
  if (!erase_credentials(target, key)) {
    const size_t slash = key.find('/');
    const AuthSources everywhere;
    if (!arguments.value("authfile") &&
        find_credentials(everywhere, key.substr(0, slash), slash == std::string::npos ? "" : key.substr(slash + 1))) {
      throw Error(fmt::format("not logged into {} in {}; there are credentials in another file", key, target.path))
          .with_hint("docker logout takes those of docker away, --authfile names another file");
    }
    throw_error("not logged into {}", key);
  }
  return nlohmann::ordered_json{{"registry", key}}.dump();
}

}  // namespace kelp::image
