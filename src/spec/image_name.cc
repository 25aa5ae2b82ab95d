#include "spec/image_name.h"

#include <algorithm>

#include "base/digest_name.h"
#include "base/error.h"
#include "base/text.h"

namespace kelp::spec {

namespace {

constexpr size_t kMaxNameLength = 255;
constexpr size_t kMaxTagLength = 128;

bool is_lower_alnum(char c) noexcept { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }
bool is_alnum(char c) noexcept { return is_lower_alnum(c) || (c >= 'A' && c <= 'Z'); }

/// path-component: [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*
bool valid_component(std::string_view part) {
  size_t i = 0;
  const auto word = [&] {
    const size_t start = i;
    while (i < part.size() && is_lower_alnum(part[i])) ++i;
    return i > start;
  };
  if (!word()) return false;
  while (i < part.size()) {
    if (part[i] == '.') {
      ++i;
    } else if (part[i] == '_') {
      ++i;
      if (i < part.size() && part[i] == '_') ++i;
    } else if (part[i] == '-') {
      while (i < part.size() && part[i] == '-') ++i;
    } else {
      return false;
    }
    if (!word()) return false;
  }
  return true;
}

bool valid_tag(std::string_view tag) {
  if (tag.empty() || tag.size() > kMaxTagLength || !(is_alnum(tag[0]) || tag[0] == '_')) return false;
  return std::all_of(tag.begin(), tag.end(), [](char c) { return is_alnum(c) || c == '_' || c == '.' || c == '-'; });
}

/// host[:port] or [ipv6][:port]
bool valid_registry(std::string_view registry) {
  std::string_view host = registry;
  std::string_view port;
  bool has_port = false;
  if (starts_with(host, "[")) {
    const size_t close = host.find(']');
    if (close == std::string_view::npos || close < 3) return false;
    const std::string_view rest = host.substr(close + 1);
    const std::string_view address = host.substr(1, close - 1);
    if (!std::all_of(address.begin(), address.end(), [](char c) {
          return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || c == ':' || c == '.';
        })) {
      return false;
    }
    if (rest.empty()) return true;
    if (rest[0] != ':') return false;
    port = rest.substr(1);
    has_port = true;
  } else {
    if (const size_t colon = host.find(':'); colon != std::string_view::npos) {
      port = host.substr(colon + 1);
      host = host.substr(0, colon);
      has_port = true;
    }
    for (const std::string& label : split(host, '.')) {
      if (label.empty() || label.front() == '-' || label.back() == '-') return false;
      if (!std::all_of(label.begin(), label.end(), [](char c) { return is_alnum(c) || c == '-' || c == '_'; })) {
        return false;
      }
    }
    if (host.empty()) return false;
  }
  return !has_port || to_int(port, 1, 65535).has_value();
}

bool looks_like_registry(std::string_view first) {
  return first.find_first_of(".:[") != std::string_view::npos || first == "localhost" ||
         std::any_of(first.begin(), first.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
}

struct Parts {
  std::string_view registry, path, tag, digest;
};

std::string_view without_transport(std::string_view text) {
  constexpr std::string_view kTransport = "docker://";
  return starts_with(text, kTransport) ? text.substr(kTransport.size()) : text;
}

Parts take_apart(std::string_view text) {
  Parts parts;
  std::string_view rest = without_transport(text);
  if (const size_t at = rest.find('@'); at != std::string_view::npos) {
    parts.digest = rest.substr(at + 1);
    rest = rest.substr(0, at);
    if (!DigestName::parse(parts.digest)) {
      throw_usage("image name {}: {} is not a digest (sha256: and 64 hex digits)", quoted(text), quoted(parts.digest));
    }
  }
  const size_t slash = rest.find('/');
  if (slash != std::string_view::npos && looks_like_registry(rest.substr(0, slash))) {
    parts.registry = rest.substr(0, slash);
    rest = rest.substr(slash + 1);
    if (!valid_registry(parts.registry)) {
      throw_usage("image name {}: {} is not a registry (HOST[:PORT])", quoted(text), quoted(parts.registry));
    }
  }
  if (const size_t colon = rest.rfind(':'); colon != std::string_view::npos) {
    parts.tag = rest.substr(colon + 1);
    rest = rest.substr(0, colon);
    if (!valid_tag(parts.tag)) {
      throw_usage("image name {}: {} is not a tag (letters, digits, '_', '.', '-', at most 128)", quoted(text),
                  quoted(parts.tag));
    }
  }
  parts.path = rest;
  if (rest.empty()) throw_usage("image name {}: the repository is empty", quoted(text));
  if (rest.size() > kMaxNameLength)
    throw_usage("image name {}: longer than {} characters", quoted(text), kMaxNameLength);
  for (const std::string& component : split(rest, '/')) {
    if (valid_component(component)) continue;
    if (to_lower(component) != component && valid_component(to_lower(component))) {
      throw_usage("image name {}: the repository must be in lower case", quoted(text));
    }
    throw_usage("image name {}: {} is not valid in a repository (a-z, 0-9, single separators . _ __ -)", quoted(text),
                quoted(component));
  }
  if (rest.size() == 64 && is_full_id(rest) && parts.registry.empty()) {
    throw_usage("image name {}: 64 hex digits would be taken for an id", quoted(text));
  }
  return parts;
}

ImageName assemble(const Parts& parts, std::string registry) {
  ImageName name;
  name.registry = std::move(registry);
  if (name.registry == "index.docker.io" || name.registry == "registry-1.docker.io") name.registry = "docker.io";
  name.repository = std::string(parts.path);
  if (name.registry == "docker.io" && name.repository.find('/') == std::string::npos) {
    name.repository = "library/" + name.repository;
  }
  name.tag = std::string(parts.tag);
  name.digest = std::string(parts.digest);
  return name;
}

}  // namespace

std::string ImageName::full() const {
  std::string result = base();
  if (!tag.empty()) result += ":" + tag;
  if (!digest.empty()) result += "@" + digest;
  return result;
}

ImageName ImageName::tagged() const {
  ImageName result = *this;
  if (result.tag.empty() && result.digest.empty()) result.tag = "latest";
  return result;
}

ImageName parse_image_name(std::string_view text) {
  const Parts parts = take_apart(text);
  return assemble(parts, parts.registry.empty() ? "docker.io" : std::string(parts.registry));
}

ImageName parse_local_name(std::string_view text) {
  const Parts parts = take_apart(text);
  return assemble(parts, parts.registry.empty() ? "localhost" : std::string(parts.registry));
}

bool is_short_name(std::string_view text) {
  const std::string_view rest = without_transport(text);
  if (rest.size() != text.size()) return false;  // a transport names a registry's image: docker.io is meant
  const size_t slash = rest.find('/');
  return slash == std::string_view::npos || !looks_like_registry(rest.substr(0, slash));
}

std::vector<ImageName> local_candidates(std::string_view text) {
  try {
    std::vector<ImageName> result;
    if (is_short_name(text)) result.push_back(parse_local_name(text).tagged());
    result.push_back(parse_image_name(text).tagged());
    return result;
  } catch (const UsageError&) {
    return {};
  }
}

std::string familiar(const ImageName& name) {
  std::string result;
  if (name.registry == "docker.io") {
    constexpr std::string_view kLibrary = "library/";
    result = name.repository;
    const std::string_view rest = std::string_view(result).substr(std::min(result.size(), kLibrary.size()));
    if (starts_with(result, kLibrary) && rest.find('/') == std::string_view::npos) result = std::string(rest);
    // "docker.io/my.team/app" without its registry would be an image of a registry my.team.
    const size_t slash = result.find('/');
    if (slash != std::string::npos && looks_like_registry(std::string_view(result).substr(0, slash)))
      result = name.base();
  } else {
    result = name.base();
  }
  if (!name.tag.empty()) result += ":" + name.tag;
  if (!name.digest.empty()) result += "@" + name.digest;
  return result;
}

}  // namespace kelp::spec
