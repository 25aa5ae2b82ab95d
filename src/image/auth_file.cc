#include "image/auth_file.h"

#include <cstdlib>

#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/error.h"
#include "base/program_path.h"
#include "base/text.h"
#include "sys/lock.h"
#include "sys/safe_path.h"
#include "sys/spawn.h"

namespace kelp::image {

namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxAuthFile = 1 << 20;
constexpr const char* kHubKey = "https://index.docker.io/v1/";

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

Json read_document(const std::string& path) {
  const auto text = sys::read_small_file(path, kMaxAuthFile);
  if (!text || trim(*text).empty()) return Json::object();
  Json document = Json::parse(*text, nullptr, false);
  if (!document.is_object()) throw_error("{}: not a JSON object", path);
  return document;
}

void write_document(const std::string& path, const Json& document) {
  if (const size_t slash = path.rfind('/'); slash != std::string::npos && slash > 0) {
    sys::mkdirs(path.substr(0, slash), 0700);
  }
  sys::replace_file(path, document.dump(4) + "\n", 0600, sys::Durability::fsync);
}

std::string key_in(const AuthTarget& target, const std::string& key) {
  return target.compat && key == "docker.io" ? kHubKey : key;
}

/// The helper that keeps the credentials of `key`, "" = the file itself.
std::string helper_of(const Json& document, const std::string& key) {
  const std::string registry = key.substr(0, key.find('/'));
  if (const auto helpers = document.find("credHelpers"); helpers != document.end() && helpers->is_object()) {
    const auto found = helpers->find(registry);
    if (found != helpers->end() && found->is_string()) return found->get<std::string>();
  }
  const auto store = document.find("credsStore");
  return store != document.end() && store->is_string() ? store->get<std::string>() : "";
}

bool run_helper(const std::string& suffix, const char* verb, const std::string& input) {
  const std::string program = "docker-credential-" + suffix;
  const std::string path = find_in_path(program);
  if (path.empty()) throw_error("{} is named in the authentication file, but it is not in PATH", program);
  sys::SpawnRequest request;
  request.path = path;
  request.argv = {program, verb};
  const sys::Captured answer = sys::run_captured(std::move(request), input);
  if (answer.status == 0) return true;
  const std::string said(trim(answer.out.empty() ? answer.err : answer.out));
  if (std::string_view(verb) == "erase") return false;
  throw_error("{} {}: {}", program, verb, printable(said));
}

}  // namespace

AuthTarget auth_target(const std::string& authfile, const std::string& compat_file) {
  if (!authfile.empty() && !compat_file.empty()) throw_usage("--authfile and --compat-auth-file exclude each other");
  if (!compat_file.empty()) return {compat_file, true};
  if (!authfile.empty()) return {authfile, false};
  if (const std::string file = environment("REGISTRY_AUTH_FILE"); !file.empty()) return {file, false};
  if (const std::string run = environment("XDG_RUNTIME_DIR"); !run.empty())
    return {run + "/containers/auth.json", false};
  if (const std::string config = environment("XDG_CONFIG_HOME"); !config.empty()) {
    return {config + "/containers/auth.json", false};
  }
  const std::string home = environment("HOME");
  if (home.empty()) throw_usage("where to keep credentials? neither XDG_RUNTIME_DIR nor HOME is set");
  return {home + "/.config/containers/auth.json", false};
}

void store_credentials(const AuthTarget& target, const std::string& key, const Credentials& credentials) {
  Json document = read_document(target.path);
  if (const std::string helper = helper_of(document, key); !helper.empty()) {
    const Json entry{
        {"ServerURL", key_in(target, key)}, {"Username", credentials.user}, {"Secret", credentials.password}};
    run_helper(helper, "store", entry.dump());
    return;
  }
  Json& auths = document["auths"];
  if (!auths.is_object()) auths = Json::object();
  auths[key_in(target, key)] = {{"auth", base64_encode(credentials.user + ":" + credentials.password)}};
  write_document(target.path, document);
}

bool erase_credentials(const AuthTarget& target, const std::string& key) {
  Json document = read_document(target.path);
  if (const std::string helper = helper_of(document, key); !helper.empty()) {
    return run_helper(helper, "erase", key_in(target, key));
  }
  const auto auths = document.find("auths");
  if (auths == document.end() || !auths->is_object() || auths->erase(key_in(target, key)) == 0) return false;
  write_document(target.path, document);
  return true;
}

void erase_all_credentials(const AuthTarget& target) {
  Json document = read_document(target.path);
  if (const auto auths = document.find("auths"); auths != document.end() && auths->is_object()) {
    const Json entries = *auths;
    for (const auto& [key, value] : entries.items()) {
      if (const std::string helper = helper_of(document, key); !helper.empty()) run_helper(helper, "erase", key);
    }
    *auths = Json::object();
    write_document(target.path, document);
  }
}

}  // namespace kelp::image
