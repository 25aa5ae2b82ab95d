#include "store/secrets.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "store/containers.h"
#include "sys/directory.h"
#include "sys/lock.h"
#include "sys/safe_path.h"
#include "sys/xattr_tree.h"

namespace kelp::store {
namespace {

using Json = nlohmann::ordered_json;
constexpr int kSchema = 1;
constexpr size_t kIdDigits = 25;

std::string directory(const Layout& layout, std::string_view name) {
  return layout.secrets() + "/" + std::string(name);
}

std::string to_json(const SecretRecord& secret) {
  const Json json = {{"schema", kSchema},
                     {"id", secret.id},
                     {"driver", secret.driver},
                     {"labels", secret.labels},
                     {"driver_options", secret.driver_options},
                     {"created", format_rfc3339(secret.created)},
                     {"updated", format_rfc3339(secret.updated)}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::optional<SecretRecord> read_record(const Layout& layout, const std::string& name) {
  const std::string path = directory(layout, name) + "/secret.json";
  const auto text = sys::read_small_file(path);
  if (!text) return std::nullopt;
  const Json json = Json::parse(*text, nullptr, false);
  if (!json.is_object()) throw_error("{}: not a JSON object (damaged)", path);
  if (json.value("schema", 0) > kSchema) throw_error("{}: written by a newer kelp", path);
  try {
    SecretRecord secret;
    secret.name = name;
    secret.id = json.at("id").get<std::string>();
    secret.driver = json.value("driver", "file");
    secret.labels = json.value("labels", StringMap{});
    secret.driver_options = json.value("driver_options", StringMap{});
    secret.created = parse_rfc3339(json.at("created").get<std::string>());
    secret.updated = parse_rfc3339(json.at("updated").get<std::string>());
    return secret;
  } catch (const Json::exception& error) {
    throw_error("{}: damaged: {}", path, error.what());
  }
}

/// What a killed command left: values must not lie around. Younger than an hour may still be in the making.
void sweep_remains(const Layout& layout) {
  for (const auto& name : sys::names_in(layout.secrets(), true)) {
    struct stat info {};
    const std::string path = directory(layout, name);
    if (name.front() != '.' || ::lstat(path.c_str(), &info) < 0) continue;
    if (starts_with(name, ".gone-") || ::time(nullptr) - info.st_mtime > 3600) sys::remove_tree(path);
  }
}

void check_secret_name(const std::string& name) {
  const bool good = !name.empty() && name.size() < 254 && name.find_first_of(",/=\n") == std::string::npos &&
                    name.find('\0') == std::string::npos && name.front() != '.';
  if (!good)
    throw_usage("secret name {} is invalid: letters, digits, -, _ and . are good; , / = and a leading . are not",
                kelp::quoted(name));
}

}  // namespace

SecretRecord create_secret(const Layout& layout, const SecretCreation& request) {
  check_secret_name(request.name);
  if (request.value.empty() || request.value.size() > kMaxSecret)
    throw_usage("secret {}: the value must have 1 to {} bytes, not {}", kelp::quoted(request.name), kMaxSecret,
                request.value.size());
  auto old = read_record(layout, request.name);
  if (old && request.ignore) return std::move(*old);
  if (old && !request.replace)
    throw UsageError(fmt::format("{}: secret name in use", request.name)).with_hint("kelp secret create --replace");
  sys::mkdirs(layout.secrets(), 0700);
  sweep_remains(layout);
  SecretRecord secret;
  secret.name = request.name;
  secret.id = new_container_id().substr(0, kIdDigits);
  secret.labels = request.labels;
  secret.driver_options = request.driver_options;
  secret.created = secret.updated = std::chrono::system_clock::now();
  const std::string draft = directory(layout, ".new-" + secret.id);
  Rollback undo;
  undo.add([&] { sys::remove_tree(draft); });
  if (::mkdir(draft.c_str(), 0700) < 0) throw_errno("make {}", draft);
  sys::replace_file(draft + "/data", request.value, 0600, sys::Durability::fsync);
  sys::replace_file(draft + "/secret.json", to_json(secret), 0600, sys::Durability::fsync);
  if (old) remove_secret(layout, *old);
  // A published directory is never empty, so this rename is the reservation of the name.
  if (::rename(draft.c_str(), directory(layout, request.name).c_str()) < 0) {
    if (errno == ENOTEMPTY || errno == EEXIST) throw_usage("{}: secret name in use", request.name);
    throw_errno("publish the secret {}", request.name);
  }
  undo.commit();
  return secret;
}

std::optional<SecretRecord> find_secret(const Layout& layout, std::string_view name_or_id) {
  const std::string word(name_or_id);
  if (word.empty() || word.front() == '.' || word.find('/') != std::string::npos) return std::nullopt;
  if (auto secret = read_record(layout, word)) return secret;
  std::optional<SecretRecord> found;
  for (auto& secret : list_secrets(layout)) {
    if (!starts_with(secret.id, word)) continue;
    if (found) throw_usage("more than one secret has an ID that begins with {}", kelp::quoted(word));
    found = std::move(secret);
  }
  return found;
}

SecretRecord get_secret(const Layout& layout, std::string_view name_or_id) {
  if (auto secret = find_secret(layout, name_or_id)) return std::move(*secret);
  UsageError error(fmt::format("no secret with name or id {}: no such secret", kelp::quoted(name_or_id)));
  std::vector<std::string> names;
  for (const auto& secret : list_secrets(layout)) names.push_back(secret.name);
  const std::string near = nearest(name_or_id, names);
  if (!near.empty()) error.with_hint("did you mean " + kelp::quoted(std::string_view(near)) + "?");
  throw error;
}

std::vector<SecretRecord> list_secrets(const Layout& layout) {
  std::vector<SecretRecord> found;
  for (const auto& name : sys::names_in(layout.secrets(), true)) {
    if (name.front() == '.') continue;
    try {
      if (auto secret = read_record(layout, name)) found.push_back(std::move(*secret));
    } catch (const Error& error) {
      log::warn("secret {} is left out: {}", name, error.what());
    }
  }
  return found;
}

std::string read_secret(const Layout& layout, const SecretRecord& secret) {
  auto value = sys::read_small_file(directory(layout, secret.name) + "/data");
  if (!value) throw_error("the value of secret {} is gone", secret.name);
  return std::move(*value);
}

void remove_secret(const Layout& layout, const SecretRecord& secret) {
  const std::string gone = directory(layout, ".gone-" + new_container_id());
  if (::rename(directory(layout, secret.name).c_str(), gone.c_str()) < 0 && errno != ENOENT)
    throw_errno("remove the secret {}", secret.name);
  sys::remove_tree(gone);
}

}  // namespace kelp::store
