#include "image/auth.h"

#include <cstdint>
#include <cstdlib>

#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/error.h"
#include "base/log.h"
#include "base/program_path.h"
#include "base/text.h"
#include "sys/lock.h"
#include "sys/spawn.h"

namespace kelp::image {

namespace {

using Json = nlohmann::json;

/// Docker Hub's key in files that docker wrote.
constexpr std::string_view kHubKey = "https://index.docker.io/v1/";
constexpr size_t kMaxAuthFile = 1 << 20;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// Docker writes "https://host/v1/" where containers/image writes "host".
std::string normal_key(std::string_view key) {
  bool url = false;
  for (const std::string_view scheme : {"https://", "http://"}) {
    if (starts_with(key, scheme)) {
      key.remove_prefix(scheme.size());
      url = true;
    }
  }
  if (url) key = key.substr(0, key.find('/'));
  if (key == "index.docker.io" || key == "registry-1.docker.io") return "docker.io";
  return std::string(key);
}

/// "quay.io/team/app", "quay.io/team", "quay.io"
std::vector<std::string> keys_for(const std::string& registry, const std::string& repository) {
  std::vector<std::string> keys;
  std::string key = registry + "/" + repository;
  while (key.size() > registry.size()) {
    keys.push_back(key);
    key.resize(key.rfind('/'));
  }
  keys.push_back(registry);
  return keys;
}

std::string text_member(const Json& object, const char* name) {
  const auto member = object.find(name);
  return member != object.end() && member->is_string() ? member->get<std::string>() : "";
}

std::optional<Credentials> entry_credentials(const Json& entry, std::string_view what, const std::string& key) {
  Credentials result;
  result.identity_token = text_member(entry, "identitytoken");
  const std::string auth = text_member(entry, "auth");
  if (auth.empty()) {
    result.user = text_member(entry, "username");
    result.password = text_member(entry, "password");
    if (result.user.empty() && result.identity_token.empty()) return std::nullopt;
    return result;
  }
  const auto decoded = base64_decode(auth);
  const size_t colon = decoded ? decoded->find(':') : std::string::npos;
  if (colon == std::string::npos)
    throw_error("{}: auths.{}.auth is not base64 of user:password", what, kelp::quoted(key));
  result.user = decoded->substr(0, colon);
  result.password = decoded->substr(colon + 1);
  while (!result.password.empty() && result.password.back() == '\0') result.password.pop_back();
  return result;
}

/// Asks docker-credential-<suffix>. "Not found" is an answer.
std::optional<Credentials> ask_helper(const std::string& suffix, const std::string& server) {
  const std::string program = "docker-credential-" + suffix;
  const std::string path = find_in_path(program);
  if (path.empty()) {
    log::warn("{} is named in an authentication file, but it is not in PATH", program);
    return std::nullopt;
  }
  sys::SpawnRequest request;
  request.path = path;
  request.argv = {program, "get"};
  const sys::Captured answer = sys::run_captured(std::move(request), server);
  if (answer.status != 0) {
    log::debug("{}: {}", program, trim(answer.out + answer.err));
    return std::nullopt;
  }
  const Json document = Json::parse(answer.out, nullptr, false);
  if (!document.is_object()) throw_error("{}: its answer is not JSON", program);
  Credentials result;
  result.user = text_member(document, "Username");
  const std::string secret = text_member(document, "Secret");
  if (result.user == "<token>") {
    result.identity_token = secret;
  } else {
    result.password = secret;
  }
  return result;
}

}  // namespace

std::vector<std::string> auth_files(const AuthSources& sources) {
  if (!sources.authfile.empty()) return {sources.authfile};
  if (const std::string file = environment("REGISTRY_AUTH_FILE"); !file.empty()) return {file};
  std::vector<std::string> files;
  const std::string home = environment("HOME");
  const std::string config = environment("XDG_CONFIG_HOME");
  const std::string docker = environment("DOCKER_CONFIG");
  if (const std::string run = environment("XDG_RUNTIME_DIR"); !run.empty())
    files.push_back(run + "/containers/auth.json");
  if (!config.empty()) {
    files.push_back(config + "/containers/auth.json");
  } else if (!home.empty()) {
    files.push_back(home + "/.config/containers/auth.json");
  }
  if (!docker.empty()) {
    files.push_back(docker + "/config.json");
  } else if (!home.empty()) {
    files.push_back(home + "/.docker/config.json");
  }
  return files;
}

std::optional<Credentials> credentials_in(std::string_view json, std::string_view what, const std::string& registry,
                                          const std::string& repository, std::string& helper) {
  helper.clear();
  const Json document = Json::parse(json, nullptr, false);
  if (!document.is_object()) throw_error("{}: not a JSON object", what);
  const std::vector<std::string> keys = keys_for(registry, repository);
  if (const auto helpers = document.find("credHelpers"); helpers != document.end() && helpers->is_object()) {
    for (const auto& [key, value] : helpers->items()) {
      if (value.is_string() && normal_key(key) == registry) helper = value.get<std::string>();
    }
    if (!helper.empty()) return std::nullopt;
  }
  if (const auto auths = document.find("auths"); auths != document.end() && auths->is_object()) {
    for (const std::string& wanted : keys) {
      for (const auto& [key, entry] : auths->items()) {
        if (normal_key(key) != wanted || !entry.is_object()) continue;
        if (auto found = entry_credentials(entry, what, key)) return found;
      }
    }
  }
  helper = text_member(document, "credsStore");
  return std::nullopt;
}

std::optional<Credentials> find_credentials(const AuthSources& sources, const std::string& registry,
                                            const std::string& repository) {
  if (!sources.creds.empty()) {
    const size_t colon = sources.creds.find(':');
    Credentials given;
    given.user = sources.creds.substr(0, colon);
    if (colon != std::string::npos) given.password = sources.creds.substr(colon + 1);
    return given;
  }
  for (const std::string& file : auth_files(sources)) {
    const auto text = sys::read_small_file(file, kMaxAuthFile);
    if (!text) {
      if (!sources.authfile.empty()) throw_usage("--authfile {}: no such file", kelp::quoted(file));
      continue;
    }
    if (trim(*text).empty()) continue;
    std::string helper;
    if (auto found = credentials_in(*text, file, registry, repository, helper)) return found;
    if (helper.empty()) continue;
    if (auto found = ask_helper(helper, registry)) return found;
    if (registry == "docker.io") {
      if (auto found = ask_helper(helper, std::string(kHubKey))) return found;
    }
  }
  return std::nullopt;
}

std::vector<Challenge> parse_challenges(std::string_view header) {
  std::vector<Challenge> result;
  size_t at = 0;
  const auto skip_blanks = [&] {
    while (at < header.size() && (header[at] == ' ' || header[at] == '\t' || header[at] == ',')) ++at;
  };
  const auto word = [&] {
    const size_t start = at;
    while (at < header.size() && header[at] != ' ' && header[at] != '\t' && header[at] != ',' && header[at] != '=')
      ++at;
    return std::string(header.substr(start, at - start));
  };
  for (skip_blanks(); at < header.size(); skip_blanks()) {
    const std::string name = word();
    if (at >= header.size() || header[at] != '=') {
      if (name.empty()) break;  // a stray sign: nothing sensible follows
      result.push_back({to_lower(name), {}});
      continue;
    }
    ++at;
    std::string value;
    if (at < header.size() && header[at] == '"') {
      for (++at; at < header.size() && header[at] != '"'; ++at) {
        if (header[at] == '\\' && at + 1 < header.size()) ++at;
        value += header[at];
      }
      if (at < header.size()) ++at;
    } else {
      const size_t start = at;
      while (at < header.size() && header[at] != ',' && header[at] != ' ') ++at;
      value = header.substr(start, at - start);
    }
    if (!result.empty() && !name.empty()) result.back().parameters.emplace(to_lower(name), value);
  }
  return result;
}

std::string basic_authorization(const Credentials& credentials) {
  return "Basic " + base64_encode(credentials.user + ":" + credentials.password);
}

}  // namespace kelp::image
