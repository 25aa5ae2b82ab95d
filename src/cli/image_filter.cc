#include "cli/image_filter.h"

#include <fnmatch.h>

#include <algorithm>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"
#include "cli/container_select.h"
#include "store/containers.h"
#include "store/image_lists.h"

namespace kelp::cli {
namespace {

constexpr const char* kKeys[] = {"after", "before", "containers", "dangling", "digest",    "id",    "intermediate",
                                 "label", "label!", "manifest",   "readonly", "reference", "since", "until"};

std::set<std::string> used_by_containers(const store::Layout& layout) {
  std::set<std::string> ids;
  for (const auto& record : store::list(layout)) ids.insert(record.image_id);
  return ids;
}

/// Images without a name on whose layers others stand.
std::set<std::string> intermediate(const store::Layout& layout) {
  const auto images = store::list_images(layout);
  std::set<std::string> below;  // chains that are not the last one of an image
  for (const auto& image : images) {
    const auto chains = image.chains();
    if (!chains.empty()) below.insert(chains.begin(), chains.end() - 1);
  }
  std::set<std::string> ids;
  for (const auto& image : images)
    if (image.names.empty() && !image.layers.empty() && below.count(image.chains().back()) > 0) ids.insert(image.id);
  return ids;
}

std::string_view without_tag(std::string_view name) {
  const size_t colon = name.rfind(':');
  return colon != std::string_view::npos && name.find('/', colon) == std::string_view::npos ? name.substr(0, colon)
                                                                                            : name;
}

}  // namespace

std::chrono::system_clock::time_point image_created(const store::ImageRecord& image) {
  if (image.created.empty()) return {};
  try {
    return parse_rfc3339(image.created);
  } catch (const Error&) {  // whatever a foreign tool wrote there must not keep images from being listed
    return {};
  }
}

bool name_fits(std::string_view full_name, std::string_view wanted) {
  const std::string pattern(wanted);
  for (std::string_view candidate : {full_name, without_tag(full_name)}) {
    // Each suffix that begins at a path component: "nginx" fits docker.io/library/nginx.
    for (size_t from = 0; from != std::string_view::npos;) {
      const std::string part(candidate.substr(from));
      if (::fnmatch(pattern.c_str(), part.c_str(), 0) == 0) return true;
      const size_t slash = candidate.find('/', from);
      from = slash == std::string_view::npos ? slash : slash + 1;
    }
  }
  return false;
}

bool image_name_fits(const store::ImageRecord& image, std::string_view wanted) {
  const auto fits = [&](const std::string& name) { return name_fits(name, wanted); };
  return std::any_of(image.names.begin(), image.names.end(), fits) ||
         (image.names.empty() && std::any_of(image.repos.begin(), image.repos.end(), fits));
}

ImageFilter::ImageFilter(Invocation& invocation, const Strings& conditions) {
  for (const auto& text : conditions) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) throw_usage("--filter {}: must be key=value", quoted(text));
    Condition condition{text.substr(0, equals), text.substr(equals + 1), {}, {}, false};
    if (std::none_of(std::begin(kKeys), std::end(kKeys), [&](const char* key) { return condition.key == key; })) {
      throw_usage("--filter: unknown key {}; there are: {}", quoted(condition.key),
                  join(Strings(std::begin(kKeys), std::end(kKeys)), ", "));
    }
    if (condition.key == "after") condition.key = "since";
    const std::string& key = condition.key;
    if (key == "dangling" || key == "containers" || key == "intermediate" || key == "manifest" || key == "readonly") {
      const auto wanted = to_bool(condition.value);
      const bool external = key == "containers" && condition.value == "external";  // there are none of other tools
      if (!wanted && !external) throw_usage("--filter: {} must be true or false, not {}", key, quoted(condition.value));
      condition.wanted = wanted.value_or(true);
      if (key == "containers" && !external) condition.ids = used_by_containers(invocation.context.layout);
      if (key == "manifest")
        for (const auto& list : store::lists_as_images(invocation.context.layout)) condition.ids.insert(list.id);
      if (key == "intermediate") condition.ids = intermediate(invocation.context.layout);
    }
    if (condition.key == "before" || condition.key == "since") {
      condition.moment = image_created(store::require_image(invocation.context.layout, condition.value));
    }
    if (condition.key == "until") condition.moment = parse_moment(condition.value, "--filter until");
    conditions_.push_back(std::move(condition));
  }
}

bool ImageFilter::matches(const Condition& condition, const store::ImageRecord& image) {
  const std::string& key = condition.key;
  const std::string& value = condition.value;
  if (key == "dangling") return image.names.empty() == condition.wanted;
  if (key == "containers" || key == "intermediate" || key == "manifest" || key == "readonly")  // no store is read-only
    return (condition.ids.count(image.id) > 0) == condition.wanted;
  if (key == "id")
    return starts_with(image.id,
                       starts_with(value, "sha256:") ? std::string_view(value).substr(7) : std::string_view(value));
  if (key == "digest") return starts_with(image.digest, value);
  if (key == "label") return label_fits(image.config.labels, value);
  if (key == "label!") return !label_fits(image.config.labels, value);
  if (key == "reference") return image_name_fits(image, value);
  if (key == "since") return image_created(image) > condition.moment;
  return image_created(image) < condition.moment;  // before, until
}

bool ImageFilter::matches(const store::ImageRecord& image) const {
  for (const Condition& condition : conditions_) {
    const bool all = condition.key == "label" || condition.key == "label!";
    bool fits = matches(condition, image);
    if (!fits && !all) {
      fits = std::any_of(conditions_.begin(), conditions_.end(),
                         [&](const Condition& other) { return other.key == condition.key && matches(other, image); });
    }
    if (!fits) return false;
  }
  return true;
}

}  // namespace kelp::cli
