#include "image/policy.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "base/toml.h"
#include "sys/lock.h"

namespace kelp::image {

namespace {

constexpr size_t kMaxConfigFile = 4 << 20;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string user_dir(const char* variable, const char* below_home) {
  if (const std::string dir = environment(variable); !dir.empty()) return dir + "/containers";
  if (const std::string home = environment("HOME"); !home.empty()) return home + below_home + "/containers";
  return "";
}

/// Names in a directory that end in `suffix`, sorted; none when it is not there.
std::vector<std::string> files_in(const std::string& dir, std::string_view suffix) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::opendir(dir.c_str()), &::closedir);
  if (!stream) return names;
  while (const dirent* entry = ::readdir(stream.get())) {
    if (entry->d_name[0] != '.' && ends_with(entry->d_name, suffix)) names.emplace_back(entry->d_name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

toml::table parse_toml(std::string_view text, const std::string& what) {
  try {
    return toml::parse(text, what);
  } catch (const toml::parse_error& error) {
    throw_error("{}: line {}: {}", what, error.source().begin.line, printable(error.description()));
  }
}

[[noreturn]] void throw_at(const std::string& what, const toml::node& node, const std::string& problem) {
  throw_error("{}: line {}: {}", what, node.source().begin.line, problem);
}

std::string string_of(const toml::table& table, const char* key, const std::string& what) {
  const toml::node* node = table.get(key);
  if (node == nullptr) return "";
  const auto value = node->value_exact<std::string>();
  if (!value) throw_at(what, *node, fmt::format("{} must be a string", key));
  return *value;
}

bool bool_of(const toml::table& table, const char* key, const std::string& what) {
  const toml::node* node = table.get(key);
  if (node == nullptr) return false;
  const auto value = node->value_exact<bool>();
  if (!value) throw_at(what, *node, fmt::format("{} must be true or false", key));
  return *value;
}

std::vector<std::string> strings_of(const toml::node& node, const char* key, const std::string& what) {
  const toml::array* array = node.as_array();
  if (array == nullptr) throw_at(what, node, fmt::format("{} must be a list of strings", key));
  std::vector<std::string> result;
  for (const toml::node& element : *array) {
    const auto value = element.value_exact<std::string>();
    if (!value) throw_at(what, element, fmt::format("{} must be a list of strings", key));
    result.push_back(*value);
  }
  return result;
}

std::string trimmed_location(std::string location) {
  while (ends_with(location, "/")) location.pop_back();
  return location;
}

RegistryRule parse_rule(const toml::table& table, const std::string& what) {
  RegistryRule rule;
  rule.prefix = trimmed_location(string_of(table, "prefix", what));
  rule.location = trimmed_location(string_of(table, "location", what));
  rule.insecure = bool_of(table, "insecure", what);
  rule.blocked = bool_of(table, "blocked", what);
  rule.mirror_by_digest_only = bool_of(table, "mirror-by-digest-only", what);
  if (rule.prefix.empty()) rule.prefix = rule.location;
  if (rule.prefix.empty()) throw_at(what, table, "a [[registry]] needs a prefix or a location");
  if (rule.location.find("://") != std::string::npos) throw_at(what, table, "location must not have a scheme");
  if (const toml::node* mirrors = table.get("mirror"); mirrors != nullptr) {
    const toml::array* array = mirrors->as_array();
    if (array == nullptr) throw_at(what, *mirrors, "mirror must be written as [[registry.mirror]]");
    for (const toml::node& element : *array) {
      const toml::table* entry = element.as_table();
      if (entry == nullptr) throw_at(what, element, "mirror must be written as [[registry.mirror]]");
      Mirror mirror;
      mirror.location = trimmed_location(string_of(*entry, "location", what));
      mirror.insecure = bool_of(*entry, "insecure", what);
      if (const std::string from = string_of(*entry, "pull-from-mirror", what); !from.empty()) mirror.pull_from = from;
      if (mirror.location.empty()) throw_at(what, element, "a [[registry.mirror]] needs a location");
      rule.mirrors.push_back(std::move(mirror));
    }
  }
  return rule;
}

/// The part of `name` after the prefix; nullopt when the name is not in it.
std::optional<std::string> after_prefix(const std::string& name, const std::string& prefix) {
  if (starts_with(prefix, "*.")) {
    const size_t host_end = std::min(name.find('/'), name.size());
    const std::string host = name.substr(0, host_end);
    const size_t slash = prefix.find('/');
    const std::string domain = prefix.substr(1, slash == std::string::npos ? std::string::npos : slash - 1);
    if (!ends_with(host, domain) || slash != std::string::npos) return std::nullopt;
    return name.substr(host_end);
  }
  if (!starts_with(name, prefix)) return std::nullopt;
  const std::string rest = name.substr(prefix.size());
  if (rest.empty() || rest[0] == '/' || rest[0] == ':' || rest[0] == '@') return rest;
  return std::nullopt;
}

PullSource source_at(const std::string& location, const std::string& rest, bool insecure, bool mirror) {
  PullSource source;
  source.name = spec::parse_image_name(location + rest);
  source.insecure = insecure;
  source.mirror = mirror;
  return source;
}

}  // namespace

RegistryPolicy RegistryPolicy::load() {
  RegistryPolicy policy;
  const std::string user = user_dir("XDG_CONFIG_HOME", "/.config");
  std::vector<std::string> mains;
  if (const std::string given = environment("CONTAINERS_REGISTRIES_CONF"); !given.empty()) {
    mains = {given};
  } else {
    if (!user.empty()) mains.push_back(user + "/registries.conf");
    mains.emplace_back("/etc/containers/registries.conf");
    mains.emplace_back("/usr/share/containers/registries.conf");
  }
  for (const std::string& path : mains) {
    if (const auto text = sys::read_small_file(path, kMaxConfigFile)) {
      policy.add(*text, path);
      break;
    }
  }
  std::vector<std::string> dirs{"/etc/containers/registries.conf.d"};
  if (!user.empty()) dirs.push_back(user + "/registries.conf.d");
  if (const std::string given = environment("CONTAINERS_REGISTRIES_CONF_DIR"); !given.empty()) dirs = {given};
  for (const std::string& dir : dirs) {
    for (const std::string& name : files_in(dir, ".conf")) {
      if (const auto text = sys::read_small_file(dir + "/" + name, kMaxConfigFile)) policy.add(*text, dir + "/" + name);
    }
  }
  const std::string recorded = user_dir("XDG_CACHE_HOME", "/.cache") + "/short-name-aliases.conf";
  if (const auto text = sys::read_small_file(recorded, kMaxConfigFile)) policy.add_aliases(*text, recorded);
  return policy;
}

void RegistryPolicy::add_aliases(std::string_view toml, const std::string& what) {
  const toml::table document = parse_toml(toml, what);
  const toml::node* node = document.get("aliases");
  if (node == nullptr) return;
  const toml::table* table = node->as_table();
  if (table == nullptr) throw_at(what, *node, "aliases must be a table");
  for (const auto& [key, value] : *table) {
    const auto target = value.value_exact<std::string>();
    if (!target) throw_at(what, value, "an alias must be a string");
    if (target->empty()) {
      aliases_.erase(std::string(key.str()));  // a later file takes an alias back
    } else {
      aliases_[std::string(key.str())] = *target;
    }
  }
}

void RegistryPolicy::add(std::string_view toml, const std::string& what) {
  const toml::table document = parse_toml(toml, what);
  if (const toml::node* search = document.get("unqualified-search-registries")) {
    search_ = strings_of(*search, "unqualified-search-registries", what);
  }
  if (const toml::node* node = document.get("short-name-mode")) {
    const std::string mode = string_of(document, "short-name-mode", what);
    if (mode == "enforcing") {
      mode_ = ShortNameMode::enforcing;
    } else if (mode == "permissive") {
      mode_ = ShortNameMode::permissive;
    } else if (mode == "disabled") {
      mode_ = ShortNameMode::disabled;
    } else {
      throw_at(what, *node, "short-name-mode must be enforcing, permissive or disabled");
    }
  }
  const auto put_rule = [&](RegistryRule rule) {
    const auto same = std::find_if(rules_.begin(), rules_.end(),
                                   [&](const RegistryRule& other) { return other.prefix == rule.prefix; });
    if (same == rules_.end()) {
      rules_.push_back(std::move(rule));
    } else {
      *same = std::move(rule);
    }
  };
  if (const toml::node* node = document.get("registry")) {
    const toml::array* array = node->as_array();
    if (array == nullptr) throw_at(what, *node, "registry must be written as [[registry]]");
    for (const toml::node& element : *array) {
      const toml::table* table = element.as_table();
      if (table == nullptr) throw_at(what, element, "registry must be written as [[registry]]");
      put_rule(parse_rule(*table, what));
    }
  }
  // Version 1: [registries.search], [registries.insecure], [registries.block]
  if (const toml::node* old = document["registries"]["search"]["registries"].node()) {
    search_ = strings_of(*old, "registries", what);
  }
  for (const char* kind : {"insecure", "block"}) {
    const toml::node* old = document["registries"][kind]["registries"].node();
    if (old == nullptr) continue;
    for (const std::string& host : strings_of(*old, "registries", what)) {
      RegistryRule rule;
      rule.prefix = rule.location = trimmed_location(host);
      (std::string_view(kind) == "insecure" ? rule.insecure : rule.blocked) = true;
      put_rule(std::move(rule));
    }
  }
  add_aliases(toml, what);
}

std::vector<spec::ImageName> RegistryPolicy::resolve(std::string_view text) const {
  if (!spec::is_short_name(text)) return {spec::parse_image_name(text).tagged()};
  const spec::ImageName parsed = spec::parse_image_name(text);  // checks the grammar
  std::string bare(text);
  if (const size_t at = bare.find('@'); at != std::string::npos) bare.resize(at);
  if (const size_t colon = bare.find(':'); colon != std::string::npos) bare.resize(colon);
  const std::string rest = std::string(text).substr(bare.size());
  if (mode_ != ShortNameMode::disabled) {
    if (const auto alias = aliases_.find(bare); alias != aliases_.end()) {
      return {spec::parse_image_name(alias->second + rest).tagged()};
    }
  }
  if (search_.empty()) {
    throw UsageError(fmt::format("{}: a short name, and no registry is configured to look in", kelp::quoted(text)))
        .with_hint(fmt::format("name the registry, for instance docker.io/{}", parsed.repository + rest));
  }
  if (mode_ == ShortNameMode::enforcing && search_.size() > 1) {
    throw UsageError(fmt::format("{}: a short name that may come from {} registries (short-name-mode is enforcing)",
                                 kelp::quoted(text), search_.size()))
        .with_hint(fmt::format("name the registry, for instance {}/{}", search_.front(), text));
  }
  std::vector<spec::ImageName> result;
  for (const std::string& registry : search_) {
    result.push_back(spec::parse_image_name(trimmed_location(registry) + "/" + std::string(text)).tagged());
  }
  return result;
}

const RegistryRule* RegistryPolicy::rule_for(const spec::ImageName& name) const {
  const std::string full = name.full();
  const RegistryRule* best = nullptr;
  for (const RegistryRule& rule : rules_) {
    if (after_prefix(full, rule.prefix) && (best == nullptr || rule.prefix.size() > best->prefix.size())) best = &rule;
  }
  return best;
}

std::vector<PullSource> RegistryPolicy::sources(const spec::ImageName& name) const {
  const RegistryRule* rule = rule_for(name);
  if (rule == nullptr) return {PullSource{name, false, false}};
  if (rule->blocked) {
    throw Error(fmt::format("registry {} is blocked in registries.conf", rule->prefix))
        .with_hint("remove `blocked = true` from its [[registry]] table");
  }
  const std::string rest = after_prefix(name.full(), rule->prefix).value_or("");
  std::vector<PullSource> result;
  for (const Mirror& mirror : rule->mirrors) {
    const bool by_digest = !name.digest.empty();
    if ((rule->mirror_by_digest_only || mirror.pull_from == "digest-only") && !by_digest) continue;
    if (mirror.pull_from == "tag-only" && by_digest) continue;
    result.push_back(source_at(mirror.location, rest, mirror.insecure, true));
  }
  if (rule->location.empty()) {
    result.push_back(PullSource{name, rule->insecure, false});
  } else {
    result.push_back(source_at(rule->location, rest, rule->insecure, false));
  }
  return result;
}

bool is_loopback_host(std::string_view registry) {
  if (starts_with(registry, "[")) return starts_with(registry, "[::1]");
  const std::string_view host = registry.substr(0, registry.find(':'));
  return host == "localhost" || starts_with(host, "127.");
}

RegistryCertificates registry_certificates(const std::string& registry, const std::string& cert_dir) {
  std::vector<std::string> dirs;
  if (!cert_dir.empty()) {
    if (::access(cert_dir.c_str(), R_OK | X_OK) != 0) throw_errno("--cert-dir {}", kelp::quoted(cert_dir));
    dirs = {cert_dir};
  } else {
    if (const std::string user = user_dir("XDG_CONFIG_HOME", "/.config"); !user.empty()) {
      dirs.push_back(user + "/certs.d/" + registry);
    }
    dirs.push_back("/etc/containers/certs.d/" + registry);
    dirs.push_back("/etc/docker/certs.d/" + registry);
  }
  RegistryCertificates result;
  for (const std::string& dir : dirs) {
    if (::access(dir.c_str(), X_OK) != 0) continue;
    for (const std::string& name : files_in(dir, ".crt")) {
      result.ca_pem += sys::read_small_file(dir + "/" + name, kMaxConfigFile).value_or("") + "\n";
    }
    for (const std::string& name : files_in(dir, ".cert")) {
      const std::string key = dir + "/" + name.substr(0, name.size() - 5) + ".key";
      if (::access(key.c_str(), R_OK) != 0) throw_errno("key of the client certificate {}/{}: {}", dir, name, key);
      result.client_cert = dir + "/" + name;
      result.client_key = key;
    }
    break;
  }
  return result;
}

}  // namespace kelp::image
