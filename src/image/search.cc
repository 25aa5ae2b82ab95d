// The verb search. Registries never agreed on a way: Docker's hub and some others answer the version 1 search, all the
// others at best list their repositories (/v2/_catalog), which are then looked through here.
#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "image/push.h"
#include "image/url.h"
#include "image/verbs.h"
#include "spec/image_name.h"

namespace kelp::image {

namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxPages = 50;

struct Hit {
  std::string registry, name, description;
  std::int64_t stars = 0;
  bool official = false, automated = false;
};

std::string text_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

/// Version 1 search; nullopt when the registry has none.
std::optional<std::vector<Hit>> search_v1(Registry& registry, const std::string& host, const std::string& term,
                                          std::int64_t limit) {
  const auto response = registry.get(fmt::format("/v1/search?q={}&n={}", url_encode(term), limit));
  if (!response || response->status != 200) return std::nullopt;
  const Json document = Json::parse(response->body, nullptr, false);
  const auto results = document.is_object() ? document.find("results") : document.end();
  if (!document.is_object() || results == document.end() || !results->is_array()) return std::nullopt;
  std::vector<Hit> hits;
  for (const Json& item : *results) {
    if (!item.is_object()) continue;
    Hit hit;
    hit.registry = host;
    hit.name = host + "/" + text_of(item, "name");
    hit.official = item.value("is_official", false);
    if (hit.official && host == "docker.io") hit.name = host + "/library/" + text_of(item, "name");
    hit.description = text_of(item, "description");
    const auto stars = item.find("star_count");
    if (stars != item.end() && stars->is_number_integer()) hit.stars = stars->get<std::int64_t>();
    hit.automated = item.value("is_automated", false);
    hits.push_back(std::move(hit));
  }
  return hits;
}

std::vector<Hit> search_catalog(Registry& registry, const std::string& host, const std::string& term,
                                std::int64_t limit) {
  std::vector<Hit> hits;
  std::string path = "/v2/_catalog";
  for (size_t page = 0; page < kMaxPages && !path.empty(); ++page) {
    const auto response = registry.get(path);
    if (!response || response->status != 200) {
      throw_error("{}: the registry cannot be searched (status {})", host, response ? response->status : 404);
    }
    const Json document = Json::parse(response->body, nullptr, false);
    const auto list = document.is_object() ? document.find("repositories") : document.end();
    if (!document.is_object() || list == document.end() || !list->is_array()) {
      throw_error("{}: its list of repositories makes no sense", host);
    }
    for (const Json& item : *list) {
      if (!item.is_string()) continue;
      const auto name = item.get<std::string>();
      if (name.find(term) == std::string::npos) continue;
      hits.push_back({.registry = host, .name = host + "/" + name});
      if (static_cast<std::int64_t>(hits.size()) >= limit) return hits;
    }
    // Link: </v2/_catalog?last=…>; rel="next"
    const std::string link = response->header("link").value_or("");
    const size_t open = link.find('<'), close = link.find('>');
    path.clear();
    if (open == 0 && close != std::string::npos && link[1] == '/') path = link.substr(1, close - 1);
  }
  return hits;
}

spec::ImageName registry_name(const std::string& host) {
  spec::ImageName name;
  name.registry = host;
  return name;
}

}  // namespace

/// search [--limit N] [--list-tags] TERM
std::string verb_search(VerbRequest& request) {
  const Arguments& arguments = request.arguments;
  arguments.need_positional(1, 1);
  const std::string& term = arguments.positional[0];
  const auto limit = to_int(arguments.value("limit").value_or("25"), 1, 10'000);
  if (!limit) throw_usage("--limit: must be a number from 1 to 10000");
  const RegistryPolicy policy = RegistryPolicy::load();
  Http http(http_options(arguments));
  const auto connect = [&](const spec::ImageName& name) {
    spec::ImageName probe = name;
    if (probe.repository.empty()) probe.repository = "x";
    const RegistryRule* rule = policy.rule_for(probe.tagged());
    if (rule != nullptr && rule->blocked) throw_error("registry {} is blocked in registries.conf", rule->prefix);
    return Registry(http, {.name = name, .insecure = rule != nullptr && rule->insecure, .mirror = false},
                    registry_options(arguments));
  };
  Json result = Json::array();
  if (arguments.flag("list-tags")) {
    for (const spec::ImageName& name : policy.resolve(term)) {
      Registry registry = connect(name);
      const auto tags = registry.tags();
      if (!tags) throw_error("{}: the registry has no such repository", name.base());
      for (const std::string& tag : *tags) {
        if (static_cast<std::int64_t>(result.size()) >= *limit) break;
        result.push_back({{"name", name.base()}, {"tag", tag}});
      }
      break;
    }
    return Json{{"v", 1}, {"tags", std::move(result)}}.dump();
  }
  // "host/term" looks there, a bare term wherever short names are looked for.
  std::vector<std::string> hosts = policy.search_registries();
  std::string wanted = term;
  if (!spec::is_short_name(term) && term.find('/') != std::string::npos) {
    hosts = {term.substr(0, term.find('/'))};
    wanted = term.substr(term.find('/') + 1);
  } else if (!spec::is_short_name(term + "/x")) {  // "quay.io" alone: everything there
    hosts = {term};
    wanted.clear();
  }
  if (hosts.empty()) {
    throw UsageError("no registry is configured to search in").with_hint("name one: kelp search docker.io/" + term);
  }
  std::vector<std::string> problems;
  size_t answered = 0;
  for (const std::string& host : hosts) {
    try {
      // The hub's search lives on another host than its images.
      Registry registry = connect(registry_name(host == "docker.io" ? "index.docker.io" : host));
      auto hits = search_v1(registry, host, wanted, *limit);
      if (!hits) hits = search_catalog(registry, host, wanted, *limit);
      ++answered;
      std::int64_t count = 0;
      for (const Hit& hit : *hits) {
        if (++count > *limit) break;
        result.push_back({{"registry", hit.registry},
                          {"name", hit.name},
                          {"description", hit.description},
                          {"stars", hit.stars},
                          {"official", hit.official},
                          {"automated", hit.automated}});
      }
    } catch (const Error& error) {
      if (hosts.size() == 1) throw;
      problems.push_back(error.message());
    }
  }
  if (answered == 0) throw_error("{}", join(problems, "; "));
  return Json{{"v", 1}, {"hits", std::move(result)}, {"warnings", problems}}.dump(-1, ' ', false,
                                                                                  Json::error_handler_t::replace);
}

}  // namespace kelp::image
