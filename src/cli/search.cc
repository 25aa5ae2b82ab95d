#include <memory>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/output.h"
#include "cli/registry_options.h"
#include "engine/registries.h"

namespace kelp::cli {
namespace {

struct SearchCommand {
  engine::RegistryAccess access;
  Strings filters;
  std::string format;
  unsigned limit = 25;
  bool list_tags = false, no_trunc = false;
};

/// stars=N, is-official=BOOL, is-automated=BOOL; all of them must fit.
class SearchFilter {
 public:
  explicit SearchFilter(const Strings& conditions) {
    for (const std::string& text : conditions) {
      const size_t equals = text.find('=');
      const std::string key = text.substr(0, equals);
      const std::string value = equals == std::string::npos ? "true" : text.substr(equals + 1);
      if (key == "stars") {
        const auto number = to_int(value, 0);
        if (!number) throw_usage("--filter stars: {} is not a number", kelp::quoted(value));
        stars_ = *number;
      } else if (key == "is-official" || key == "is-automated") {
        const auto wanted = to_bool(value);
        if (!wanted) throw_usage("--filter {}: must be true or false, not {}", key, kelp::quoted(value));
        (key == "is-official" ? official_ : automated_) = *wanted;
      } else {
        throw_usage("--filter: unknown key {}; there are: stars, is-official, is-automated", kelp::quoted(key));
      }
    }
  }
  [[nodiscard]] bool matches(const engine::SearchHit& hit) const {
    return hit.stars >= stars_ && (!official_ || *official_ == hit.official) &&
           (!automated_ || *automated_ == hit.automated);
  }

 private:
  std::int64_t stars_ = 0;
  std::optional<bool> official_, automated_;
};

int search(Invocation& invocation, const SearchCommand& values) {
  const std::string& term = invocation.arguments[0];
  ListFormat how;
  how.format = values.format;
  Json rows = Json::array();
  if (values.list_tags) {
    if (!values.filters.empty()) throw_usage("--list-tags and --filter exclude each other");
    for (const auto& [name, tag] : engine::list_tags(invocation.context, term, values.access, values.limit)) {
      rows.push_back({{"Name", name}, {"Tag", tag}});
    }
    how.columns = {{"Name", "NAME"}, {"Tag", "TAG"}};
    Json grouped = Json::array();  // one object per repository, as podman prints it
    if (!rows.empty()) {
      Json tags = Json::array();
      for (const Json& row : rows) tags.push_back(row["Tag"]);
      grouped.push_back({{"Name", rows[0]["Name"]}, {"Tags", tags}});
    }
    print(render_list(how, rows, &grouped));
    return 0;
  }
  const SearchFilter filter(values.filters);
  for (const engine::SearchHit& hit : engine::search_images(invocation.context, term, values.access, values.limit)) {
    if (!filter.matches(hit)) continue;
    const std::string description = printable(hit.description);
    rows.push_back({{"Index", hit.registry},
                    {"Name", hit.name},
                    {"Description", values.no_trunc ? description : shorten(description, 44)},
                    {"Stars", hit.stars},
                    {"Official", hit.official ? "[OK]" : ""},
                    {"Automated", hit.automated ? "[OK]" : ""}});
  }
  how.columns = {{"Name", "NAME"}, {"Description", "DESCRIPTION"}};
  print(render_list(how, rows, nullptr));
  return 0;
}

}  // namespace

Action define_search(OptionSet& options) {
  auto values = std::make_shared<SearchCommand>();
  options.arguments("[REGISTRY/]TERM", 1, 1);
  add_access_options(options, values->access);
  options.list("filter,f", values->filters, "KEY=VALUE", "images that fit: stars=3, is-official=true");
  options.text("format", values->format, "FORMAT", "json, table, or a Go template for each image");
  options.number("limit", values->limit, "N", "at most so many per registry").shows("25");
  options.flag("list-tags", values->list_tags, "the tags of a repository instead");
  options.flag("no-trunc", values->no_trunc, "show descriptions in full length");
  return [values](Invocation& invocation) { return search(invocation, *values); };
}

}  // namespace kelp::cli
