#include "image/signature_policy.h"

#include <cstdlib>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"
#include "sys/lock.h"

namespace kelp::image {

namespace {

using Json = nlohmann::json;

constexpr size_t kMaxPolicy = 4 << 20;

std::vector<std::string> parse_requirements(const Json& list, const std::string& what, const std::string& where) {
  if (!list.is_array() || list.empty()) throw_error("{}: {}: must be a list of requirements", what, where);
  std::vector<std::string> result;
  for (const Json& item : list) {
    const auto type = item.is_object() ? item.find("type") : item.end();
    if (!item.is_object() || type == item.end() || !type->is_string()) {
      throw_error("{}: {}: a requirement needs a type", what, where);
    }
    const auto name = type->get<std::string>();
    if (name != "insecureAcceptAnything" && name != "reject" && name != "signedBy" && name != "sigstoreSigned" &&
        name != "signedBaseLayer") {
      throw_error("{}: {}: unknown type {}", what, where, kelp::quoted(name));
    }
    result.push_back(name);
  }
  return result;
}

}  // namespace

SignaturePolicy SignaturePolicy::parse(std::string_view json, const std::string& what) {
  SignaturePolicy policy;
  policy.what_ = what;
  const Json document = Json::parse(json, nullptr, false);
  if (!document.is_object()) throw_error("{}: not a JSON object", what);
  const auto fallback = document.find("default");
  if (fallback == document.end()) throw_error("{}: default is missing", what);
  policy.default_ = parse_requirements(*fallback, what, "default");
  const auto transports = document.find("transports");
  if (transports == document.end()) return policy;
  if (!transports->is_object()) throw_error("{}: transports: must be an object", what);
  for (const auto& [transport, scopes] : transports->items()) {
    if (!scopes.is_object()) throw_error("{}: transports.{}: must be an object", what, printable(transport));
    for (const auto& [scope, list] : scopes.items()) {
      policy.transports_[transport][scope] =
          parse_requirements(list, what, fmt::format("transports.{}.{}", printable(transport), kelp::quoted(scope)));
    }
  }
  return policy;
}

SignaturePolicy SignaturePolicy::load() {
  std::vector<std::string> paths;
  const char* config = std::getenv("XDG_CONFIG_HOME");
  const char* home = std::getenv("HOME");
  if (config != nullptr && *config != '\0') {
    paths.push_back(std::string(config) + "/containers/policy.json");
  } else if (home != nullptr && *home != '\0') {
    paths.push_back(std::string(home) + "/.config/containers/policy.json");
  }
  paths.emplace_back("/etc/containers/policy.json");
  for (const std::string& path : paths) {
    if (const auto text = sys::read_small_file(path, kMaxPolicy)) return parse(*text, path);
  }
  return {};
}

void SignaturePolicy::apply(const std::string& transport, const std::vector<std::string>& scopes,
                            const std::string& image) const {
  const Requirements* rule = &default_;
  std::string where = "default";
  if (const auto found = transports_.find(transport); found != transports_.end()) {
    for (const std::string& scope : scopes) {
      const auto match = found->second.find(scope);
      if (match == found->second.end()) continue;
      rule = &match->second;
      where = scope.empty() ? transport : fmt::format("{} {}", transport, scope);
      break;
    }
  }
  for (const std::string& type : *rule) {
    if (type == "insecureAcceptAnything") continue;
    if (type == "reject") throw_error("{}: rejected by {} ({})", image, what_, where);
    throw Error(fmt::format("{}: {} ({}) wants a signature ({}), which kelp cannot check", image, what_, where, type))
        .with_hint("only where that is safe: set the type insecureAcceptAnything for it");
  }
}

void SignaturePolicy::check(const spec::ImageName& name) const {
  // The most specific first: the name with its digest, else its tag; the repository and its parents, the host,
  // *.domains, everything.
  spec::ImageName exact = name.tagged();
  if (!exact.digest.empty()) exact.tag.clear();  // which says nothing beside a digest
  std::vector<std::string> scopes{exact.full()};
  std::string scope = name.base();
  scopes.push_back(scope);
  for (size_t slash = scope.rfind('/'); slash != std::string::npos; slash = scope.rfind('/')) {
    scope.resize(slash);
    scopes.push_back(scope);
  }
  std::string_view domain = name.registry;
  domain = domain.substr(0, domain.find(':'));
  for (size_t dot = domain.find('.'); dot != std::string_view::npos; dot = domain.find('.')) {
    domain.remove_prefix(dot + 1);
    scopes.push_back("*." + std::string(domain));
  }
  scopes.emplace_back("");
  apply("docker", scopes, name.full());
}

void SignaturePolicy::check(const std::string& transport, const std::string& path) const {
  std::vector<std::string> scopes{path};
  if (starts_with(path, "/")) {
    std::string scope = path;
    for (size_t slash = scope.rfind('/'); slash != std::string::npos && slash > 0; slash = scope.rfind('/')) {
      scope.resize(slash);
      scopes.push_back(scope);
    }
  }
  scopes.emplace_back("");
  apply(transport, scopes, fmt::format("{}:{}", transport, path));
}

void SignaturePolicy::check_stored(const std::string& driver, const std::string& root, const std::string& name) const {
  const std::string store = fmt::format("[{}@{}]", driver, root);
  std::vector<std::string> scopes{store + name};
  if (!name.empty()) {
    std::string scope = spec::parse_image_name(name).base();
    scopes.push_back(store + scope);
    for (size_t slash = scope.rfind('/'); slash != std::string::npos; slash = scope.rfind('/')) {
      scope.resize(slash);
      scopes.push_back(store + scope);
    }
    scopes.push_back(store);
  }
  scopes.push_back("[" + root + "]");
  scopes.emplace_back("");
  apply("containers-storage", scopes, fmt::format("containers-storage:{}", name));
}

}  // namespace kelp::image
