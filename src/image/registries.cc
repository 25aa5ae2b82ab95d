// `kelp-image registries`: what registries.conf says, for `kelp info`.
#include <map>
#include <string>

#include <nlohmann/json.hpp>

#include "image/policy.h"
#include "image/verbs.h"

namespace kelp::image {

std::string verb_registries(VerbRequest& request) {
  request.arguments.need_positional(0, 0);
  const RegistryPolicy policy = RegistryPolicy::load();
  // podman's names and order: templates print these as Go prints its structures.
  std::map<std::string, nlohmann::ordered_json> found;  // sorted, as Go's maps are shown
  for (const RegistryRule& rule : policy.rules()) {
    nlohmann::ordered_json mirrors;
    for (const Mirror& mirror : rule.mirrors)
      mirrors.push_back({{"Location", mirror.location},
                         {"Insecure", mirror.insecure},
                         {"PullFromMirror", mirror.pull_from == "all" ? "" : mirror.pull_from}});
    found[rule.prefix] = {{"Prefix", rule.prefix},
                          {"Location", rule.location},
                          {"Insecure", rule.insecure},
                          {"PullFromMirror", ""},
                          {"Mirrors", std::move(mirrors)},
                          {"Blocked", rule.blocked},
                          {"MirrorByDigestOnly", rule.mirror_by_digest_only}};
  }
  if (!policy.search_registries().empty()) found["search"] = policy.search_registries();
  return nlohmann::ordered_json{{"registries", std::move(found)}}.dump(-1, ' ', false,
                                                                       nlohmann::json::error_handler_t::replace);
}

}  // namespace kelp::image
