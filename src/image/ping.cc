// `kelp-image ping`: greets registries, for `kelp doctor`.
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"
#include "image/registry.h"
#include "image/verbs.h"
#include "spec/image_name.h"

namespace kelp::image {
namespace {

std::string greeting(const HttpResponse& response) {
  const std::string scheme = starts_with(response.url, "https:") ? "TLS" : "plain HTTP";
  if (response.status == 200) return scheme + ", open to all";
  if (response.status == 401) return scheme + ", asks who pulls";
  throw_error("it answered with HTTP status {}: not a registry", response.status);
}

}  // namespace

std::string verb_ping(VerbRequest& request) {
  const Arguments& arguments = request.arguments;
  const RegistryPolicy policy = RegistryPolicy::load();
  const std::vector<std::string>& names =
      arguments.positional.empty() ? policy.search_registries() : arguments.positional;
  RegistryOptions options;
  options.cert_dir = arguments.value("cert-dir").value_or("");
  options.tls_verify = arguments.boolean("tls-verify");
  HttpOptions patience;
  patience.retries = 0;
  patience.connect_timeout = std::chrono::seconds(10);
  patience.stall_timeout = std::chrono::seconds(10);
  Http http(patience);
  nlohmann::ordered_json answers = nlohmann::ordered_json::array();
  for (const std::string& name : names) {
    nlohmann::ordered_json answer = {{"name", name}};
    try {
      // Mirrors stand before the registry itself: what a pull asks first is what is asked here.
      const auto sources = policy.sources(spec::parse_image_name(name + "/ping"));
      Registry registry(http, sources.front(), options);
      answer["text"] = greeting(registry.greet());
    } catch (const Error& error) {
      answer["problem"] = error.message();
      answer["hint"] = error.hint();
    }
    answers.push_back(std::move(answer));
  }
  return nlohmann::ordered_json{{"registries", std::move(answers)}}.dump(-1, ' ', false,
                                                                         nlohmann::json::error_handler_t::replace);
}

}  // namespace kelp::image
