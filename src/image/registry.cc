#include "image/registry.h"

#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "image/digest.h"
#include "image/url.h"
#include "spec/image_docs.h"

namespace kelp::image {

namespace {

using Json = nlohmann::json;

constexpr size_t kMaxTokenAnswer = 1 << 20;
constexpr size_t kMaxTagPages = 1000;
constexpr const char* kCredentialsHint =
    "give --creds USER:PASSWORD, or --authfile with an auth.json that has the registry";

/// Docker Hub answers under another name than the one it has in image names.
std::string api_host(const std::string& registry) {
  return registry == "docker.io" ? "registry-1.docker.io" : registry;
}

std::string manifest_types() {
  return fmt::format("Accept: {}, {}, {}, {}", spec::media::kManifest, spec::media::kIndex,
                     spec::media::kDockerManifest, spec::media::kDockerList);
}

bool has_port(const std::string& registry) {
  const size_t bracket = registry.rfind(']');
  return registry.find(':', bracket == std::string::npos ? 0 : bracket) != std::string::npos;
}

/// Media type without parameters.
std::string media_type_of(const HttpResponse& response) {
  const std::string value = response.header("content-type").value_or("");
  return std::string(trim(std::string_view(value).substr(0, value.find(';'))));
}

std::string text_member(const Json& object, const char* name) {
  const auto member = object.find(name);
  return member != object.end() && member->is_string() ? member->get<std::string>() : "";
}

/// The URL of a `Link: <…>; rel="next"` header, "" when there is none.
std::string next_page(const HttpResponse& response) {
  const std::string link = response.header("link").value_or("");
  const size_t open = link.find('<');
  const size_t close = link.find('>', open == std::string::npos ? 0 : open);
  if (open == std::string::npos || close == std::string::npos) return "";
  if (link.find("next", close) == std::string::npos) return "";
  return resolve_url(response.url, link.substr(open + 1, close - open - 1));
}

}  // namespace

std::string registry_error_text(std::string_view body) {
  const Json document = Json::parse(body, nullptr, false);
  if (!document.is_object()) return "";
  const auto errors = document.find("errors");
  if (errors == document.end() || !errors->is_array() || errors->empty() || !errors->front().is_object()) return "";
  const Json& first = errors->front();
  std::string text = text_member(first, "message");
  if (text.empty()) text = to_lower(text_member(first, "code"));
  return printable(std::string_view(text).substr(0, 300));
}

Registry::Registry(Http& http, PullSource source, RegistryOptions options)
    : http_(http), source_(std::move(source)), options_(std::move(options)) {
  insecure_ = options_.tls_verify ? !*options_.tls_verify : source_.insecure;
  const RegistryCertificates certificates = registry_certificates(source_.name.registry, options_.cert_dir);
  tls_.verify = !insecure_;
  tls_.ca_pem = certificates.ca_pem;
  tls_.client_cert = certificates.client_cert;
  tls_.client_key = certificates.client_key;
}

void Registry::connect() {
  if (!base_.empty()) return;
  const std::string host = api_host(source_.name.registry);
  if (!insecure_) {
    base_ = "https://" + host;
    return;
  }
  // Declared insecure: HTTPS without verification, else plain HTTP. On loopback nobody can listen in between, and a
  // small server that is greeted in TLS may keep silent, so there plain HTTP is tried first.
  std::vector<std::string> schemes{"https://", "http://"};
  if (is_loopback_host(host)) std::swap(schemes[0], schemes[1]);
  for (size_t i = 0; i < schemes.size(); ++i) {
    HttpRequest request;
    request.url = schemes[i] + host + "/v2/";
    request.tls = tls_;
    const bool last = i + 1 == schemes.size();
    try {
      const HttpResponse response = http_.send(request);
      if (response.status != 400 || last) {  // 400: "Client sent an HTTP request to an HTTPS server"
        base_ = schemes[i] + host;
        return;
      }
    } catch (const HttpError& error) {
      const bool dead =
          error.kind() == HttpError::Kind::resolve || (error.kind() == HttpError::Kind::connect && has_port(host));
      if (last || dead) throw;
      log::debug("{}: {}", request.url, error.message());
    }
  }
}

HttpResponse Registry::greet() {
  connect();
  HttpRequest request;
  request.url = base_ + "/v2/";
  request.tls = tls_;
  return http_.send(request);
}

std::string Registry::authorization() {
  const std::scoped_lock lock(mutex_);
  return authorization_;
}

HttpResponse Registry::ask(HttpRequest request) {
  request.tls = tls_;
  for (unsigned attempt = 0;; ++attempt) {
    request.authorization = authorization();
    HttpResponse response;
    try {
      response = http_.send(request);
    } catch (HttpError& error) {
      if (error.kind() == HttpError::Kind::plain_http) {
        error.with_hint(
            fmt::format("for a registry without TLS: --tls-verify=false, or `insecure = true` for {} in "
                        "registries.conf",
                        source_.name.registry));
      } else if (error.kind() == HttpError::Kind::tls) {
        error.with_hint(
            fmt::format("put the certificate of its CA into ~/.config/containers/certs.d/{}/ca.crt, or use "
                        "--tls-verify=false",
                        source_.name.registry));
      }
      throw;
    }
    if (response.status != 401 || attempt == 2 || !authenticate(response, request.authorization)) return response;
    request.offset += response.delivered;  // the token ran out in the middle of a body
  }
}

bool Registry::authenticate(const HttpResponse& response, const std::string& sent) {
  const std::scoped_lock lock(mutex_);
  if (authorization_ != sent) return true;  // another thread has renewed it meanwhile
  if (!credentials_) credentials_ = find_credentials(options_.auth, source_.name.registry, source_.name.repository);
  const std::optional<Credentials>& credentials = *credentials_;
  for (const auto& [name, value] : response.headers) {
    if (name != "www-authenticate") continue;
    for (const Challenge& challenge : parse_challenges(value)) {
      std::string fresh;
      if (challenge.scheme == "bearer") {
        fresh = "Bearer " + fetch_token(challenge, credentials);
      } else if (challenge.scheme == "basic" && credentials && !credentials->user.empty()) {
        fresh = basic_authorization(*credentials);
      } else {
        continue;
      }
      if (fresh == sent) return false;
      authorization_ = fresh;
      return true;
    }
  }
  return false;
}

std::string Registry::fetch_token(const Challenge& challenge, const std::optional<Credentials>& credentials) {
  const auto parameter = [&](const char* name) {
    const auto found = challenge.parameters.find(name);
    return found == challenge.parameters.end() ? std::string() : found->second;
  };
  const std::string realm = parameter("realm");
  if (url_origin(realm).empty())
    throw_error("{}: its token server {} is no URL", source_.name.registry, kelp::quoted(realm));
  if (!starts_with(realm, "https://") && !insecure_) {
    throw_error("{}: its token server {} is not HTTPS", source_.name.registry, kelp::quoted(realm));
  }
  // Several scopes stand in parameters of their own.
  std::vector<std::string> scopes = options_.scopes;
  if (scopes.empty() && !parameter("scope").empty()) scopes = split(parameter("scope"), ' ');
  if (scopes.empty() && !source_.name.repository.empty()) {
    scopes.push_back(fmt::format("repository:{}:pull", source_.name.repository));
  }

  HttpRequest request;
  request.tls = tls_;
  request.max_body = kMaxTokenAnswer;
  if (credentials && !credentials->identity_token.empty()) {
    request.method = "POST";
    request.url = realm;
    request.headers.emplace_back("Content-Type: application/x-www-form-urlencoded");
    request.body = fmt::format("grant_type=refresh_token&service={}&scope={}&client_id=kelp&refresh_token={}",
                               url_encode(parameter("service")), url_encode(join(scopes, " ")),
                               url_encode(credentials->identity_token));
  } else {
    request.url = realm;
    const auto add = [&](const char* name, const std::string& value) {
      request.url += (request.url.find('?') == std::string::npos ? "?" : "&") + std::string(name) + url_encode(value);
    };
    if (const std::string service = parameter("service"); !service.empty()) add("service=", service);
    for (const std::string& scope : scopes) add("scope=", scope);
    if (credentials) request.authorization = basic_authorization(*credentials);
  }
  if (url_origin(request.url) != base_) request.tls.client_cert.clear(), request.tls.client_key.clear();
  const HttpResponse response = http_.send(request);
  if (response.status == 401 || response.status == 403) {
    throw Error(fmt::format("{}: {}", source_.name.registry,
                            credentials ? "the user name or password is wrong" : "authentication is required"))
        .with_hint(kCredentialsHint);
  }
  if (response.status != 200) throw_status(response, "ask for a token");
  const Json document = Json::parse(response.body, nullptr, false);
  std::string token;
  if (document.is_object()) {
    token = text_member(document, "token");
    if (token.empty()) token = text_member(document, "access_token");
  }
  if (token.empty() || token.find_first_of("\r\n") != std::string::npos) {
    throw_error("{}: its token server gave no token", source_.name.registry);
  }
  return token;
}

void Registry::throw_status(const HttpResponse& response, const std::string& what) const {
  const std::string reason = registry_error_text(response.body);
  const std::string& host = source_.name.registry;
  std::string detail = fmt::format("status {}", response.status);
  if (!reason.empty()) detail += ": " + reason;
  if (response.status == 401) {
    const bool known = credentials_ && *credentials_;
    throw Error(fmt::format("{}: {}: {}", host, what,
                            known ? "the user name or password is wrong" : "authentication is required"))
        .with_hint(kCredentialsHint);
  }
  if (response.status == 403) throw_error("{}: {}: access is denied ({})", host, what, detail);
  if (response.status == 407) {
    throw Error(fmt::format("{}: {}: the proxy asks for a password", host, what))
        .with_hint("http_proxy=http://USER:PASSWORD@HOST:PORT");
  }
  if (response.status == 429) throw_error("{}: {}: too many requests, the registry asks to wait", host, what);
  throw_error("{}: {}: {}", host, what, detail);
}

std::optional<FetchedManifest> Registry::manifest(const std::string& reference) {
  connect();
  HttpRequest request;
  request.url = url("/manifests/" + reference);
  request.headers.push_back(manifest_types());
  request.max_body = spec::kMaxDocumentBytes;
  const HttpResponse response = ask(std::move(request));
  if (response.status == 404) return std::nullopt;
  if (response.status != 200) throw_status(response, "read manifest " + reference);
  const DigestName digest = sha256_of(response.body);
  // The header may be absent; where the digest was asked for it is what counts.
  const auto asked = DigestName::parse(reference);
  const std::string promised = asked ? reference : response.header("docker-content-digest").value_or("");
  if (starts_with(promised, "sha256:") && promised != digest.str()) {
    throw_error("manifest {}: wrong digest: the registry sent {}", promised, digest.str());
  }
  return FetchedManifest{response.body, media_type_of(response), digest};
}

void Registry::blob(const DigestName& digest, std::uint64_t offset, std::uint64_t bound, const BodySink& sink,
                    std::stop_token stop) {
  std::uint64_t received = offset;
  HttpRequest request;
  request.url = url("/blobs/" + digest.str());
  request.offset = offset;
  request.stop = std::move(stop);
  request.sink = [&](std::span<const std::byte> bytes) {
    if (bytes.size() > bound - received) {
      throw_error("blob {}: longer than the {} bytes that the manifest says", digest.str(), bound);
    }
    received += bytes.size();
    sink(bytes);
  };
  const HttpResponse response = ask(std::move(request));
  if (response.status == 404) throw_error("blob {}: the registry does not have it", digest.str());
  if (response.status == 416) return;  // nothing after offset: the caller sees what is missing
  if (response.status != 200 && response.status != 206) throw_status(response, "read blob " + digest.str());
}

std::string Registry::small_blob(const DigestName& digest, std::uint64_t size, size_t max) {
  if (size > max) throw_error("blob {}: {} bytes are more than the {} allowed", digest.str(), size, max);
  std::string content;
  blob(digest, 0, size, [&](std::span<const std::byte> bytes) {
    content.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  });
  if (content.size() != size) throw_error("blob {}: truncated: {} of {} bytes", digest.str(), content.size(), size);
  if (const DigestName actual = sha256_of(content); actual != digest) {
    throw_error("blob {}: wrong digest: the registry sent {}", digest.str(), actual.str());
  }
  return content;
}

void Registry::check_access() {
  connect();
  HttpRequest request;
  request.url = base_ + "/v2/";
  const HttpResponse response = ask(std::move(request));
  if (response.status != 200) throw_status(response, "log in");
}

std::optional<HttpResponse> Registry::get(const std::string& path) {
  connect();
  HttpRequest request;
  request.url = base_ + path;
  HttpResponse response = ask(std::move(request));
  if (response.status == 404) return std::nullopt;
  return response;
}

std::optional<std::vector<std::string>> Registry::tags() {
  connect();
  std::vector<std::string> result;
  std::string next = url("/tags/list");
  for (size_t page = 0; !next.empty() && page < kMaxTagPages; ++page) {
    HttpRequest request;
    request.url = next;
    const HttpResponse response = ask(std::move(request));
    if (response.status == 404) return std::nullopt;
    if (response.status != 200) throw_status(response, "list tags");
    const Json document = Json::parse(response.body, nullptr, false);
    if (!document.is_object()) throw_error("{}: the list of tags is not JSON", source_.name.registry);
    if (const auto list = document.find("tags"); list != document.end() && list->is_array()) {
      for (const Json& tag : *list) {
        if (tag.is_string()) result.push_back(tag.get<std::string>());
      }
    }
    next = next_page(response);
    if (!next.empty() && url_origin(next) != url_origin(base_)) break;  // credentials stay here
  }
  return result;
}

}  // namespace kelp::image
