#include "cli/container_select.h"

#include <fcntl.h>
#include <fnmatch.h>

#include <algorithm>

#include "base/digest_name.h"
#include "base/duration_size.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "engine/inspect.h"
#include "store/containers.h"
#include "sys/lock.h"

namespace kelp::cli {
namespace {

constexpr const char* kFilterKeys[] = {"id",     "name",           "label",  "label!",  "status",
                                       "exited", "ancestor",       "before", "since",   "volume",
                                       "health", "restart-policy", "until",  "network", "command"};

/// All but the last are printed here; the last one leaves through main like any error.
void throw_last(const std::vector<Error>& errors) {
  for (size_t i = 0; i + 1 < errors.size(); ++i) log::error("{}", errors[i].message());
  if (!errors.empty()) throw errors.back();
}

std::string read_cidfile(const std::string& path) {
  const auto text = sys::read_small_file(path, 4096);
  if (!text) throw_usage("--cidfile: there is no file {}", quoted(path));
  return std::string(trim(*text));
}

/// docker's names begin with a slash, and so do patterns of its users.
std::string without_slash(const std::string& pattern) {
  if (starts_with(pattern, "^/")) return "^" + pattern.substr(2);
  return starts_with(pattern, "/") ? pattern.substr(1) : pattern;
}

/// What podman calls a container's policy: no and none are one.
std::string policy_name(const std::string& word) { return word.empty() || word == "none" ? "no" : word; }

bool image_matches(const store::ContainerRecord& record, std::string_view wanted, const Pattern& pattern) {
  if (!record.image_name.empty() && pattern.found_in(record.image_name)) return true;
  if (!record.image_id.empty() && is_id_prefix(wanted) && wanted.size() >= 3 && starts_with(record.image_id, wanted))
    return true;
  if (record.image_name == wanted) return true;
  std::string_view name = record.image_name;
  const size_t tag = name.rfind(':');
  const bool has_tag = tag != std::string_view::npos && name.find('/', tag) == std::string_view::npos;
  const std::string_view untagged = has_tag ? name.substr(0, tag) : name;
  const auto ends_at_slash = [](std::string_view whole, std::string_view part) {
    return whole == part ||
           (whole.size() > part.size() && ends_with(whole, part) && whole[whole.size() - part.size() - 1] == '/');
  };
  return ends_at_slash(name, wanted) || ends_at_slash(untagged, wanted);
}

/// The program that it executes.
std::string first_word(const store::ContainerRecord& record) {
  const Strings words = engine::shown_command(record);
  return words.empty() ? "" : words.front();
}

}  // namespace

Pattern filter_pattern(const std::string& key, const std::string& value) {
  try {
    return Pattern(value);
  } catch (const Error& error) {
    throw_usage("--filter {}: {}", key, error.message());
  }
}

bool label_fits(const store::StringMap& labels, const std::string& wanted) {
  const size_t equals = wanted.find('=');
  const std::string key = wanted.substr(0, equals);
  const std::string value = equals == std::string::npos ? "" : wanted.substr(equals + 1);
  const bool pattern = key.find('*') != std::string::npos;
  return std::any_of(labels.begin(), labels.end(), [&](const auto& label) {
    const bool named = pattern ? ::fnmatch(("*" + key + "*").c_str(), label.first.c_str(), 0) == 0 : label.first == key;
    return named && (value.empty() || label.second == value);
  });
}

void add_latest(OptionSet& options, bool& latest) {
  options.flag("latest,l", latest, "the container that was created last");
}

void add_container_choice(OptionSet& options, ContainerChoice& choice, const ContainerChoiceOptions& which) {
  options.flag("all,a", choice.all, which.all_help);
  add_latest(options, choice.latest);
  if (which.filter) {
    options.list("filter,f", choice.filters, "KEY=VALUE", "containers that fit, as in ps");
  }
  if (which.cidfile) {
    options.list("cidfile", choice.cidfiles, "FILE", "take the container's ID from a file").complete(Complete::file);
  }
  if (which.ignore) options.flag("ignore,i", choice.ignore, "do not mind containers that are not there");
  if (which.running) options.flag("running", choice.running, "running containers only");
}

store::ContainerRecord latest_container(Invocation& invocation) {
  auto records = store::list(invocation.context.layout);
  if (records.empty()) throw_usage("there is no container");
  return std::move(records.back());
}

store::ContainerRecord take_container(Invocation& invocation, bool latest) {
  if (latest) return latest_container(invocation);
  if (invocation.arguments.empty()) {
    throw UsageError(fmt::format("{} needs the name or ID of a container", invocation.command))
        .with_hint(fmt::format("see '{} --help'", invocation.command));
  }
  auto record = store::get(invocation.context.layout, invocation.arguments.front());
  invocation.arguments.erase(invocation.arguments.begin());
  return record;
}

ContainerSelection::ContainerSelection(Invocation& invocation, const ContainerChoice& choice, const char* what) {
  const auto& layout = invocation.context.layout;
  const bool by_option = choice.all || choice.latest || !choice.filters.empty() || choice.running;
  const bool named = !invocation.arguments.empty(), by_file = !choice.cidfiles.empty();
  if ((by_option && (named || by_file)) || (named && by_file)) {
    throw_usage("{}: names and --all, --latest, --filter or --cidfile exclude each other", invocation.command);
  }
  if (choice.all && choice.latest) throw_usage("{}: --all and --latest exclude each other", invocation.command);
  if (choice.latest) {
    auto record = latest_container(invocation);
    const std::string id = record.id;
    chosen_.push_back({id, std::move(record)});
    return;
  }
  if (by_option) {
    const ContainerFilter filter(invocation, choice.filters);
    for (auto& record : store::list(layout)) {
      const auto status = store::status(layout, record);
      if (choice.running && status.status != store::Status::running) continue;
      if (!filter.matches(record, status)) continue;
      const std::string id = record.id;
      chosen_.push_back({id, std::move(record)});
    }
    return;
  }
  Strings words = invocation.arguments;
  for (const auto& path : choice.cidfiles) {
    if (choice.ignore && !sys::read_small_file(path, 4096)) continue;
    words.push_back(read_cidfile(path));
  }
  if (words.empty() && choice.cidfiles.empty()) {
    throw UsageError(fmt::format("{} needs {}", invocation.command, what))
        .with_hint(fmt::format("see '{} --help'", invocation.command));
  }
  std::vector<Error> missing;
  for (const auto& word : words) {
    try {
      if (choice.ignore) {
        if (auto record = store::find(layout, word)) chosen_.push_back({word, std::move(*record)});
      } else {
        chosen_.push_back({word, store::get(layout, word)});
      }
    } catch (const UsageError& error) {
      missing.push_back(Error(error.message(), choice.missing_code).with_hint(error.hint()));
    }
  }
  throw_last(missing);
}

int ContainerSelection::for_each(const std::function<void(const Chosen&)>& act) {
  std::vector<Error> failures;
  for (const Chosen& chosen : chosen_) {
    try {
      act(chosen);
    } catch (const Error& error) {
      failures.push_back(error);
    }
  }
  throw_last(failures);
  return 0;
}

ContainerFilter::ContainerFilter(Invocation& invocation, const Strings& conditions) {
  for (const auto& text : conditions) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) throw_usage("--filter {}: must be key=value", quoted(text));
    Condition condition{text.substr(0, equals), text.substr(equals + 1), {}, {}};
    if (std::find_if(std::begin(kFilterKeys), std::end(kFilterKeys),
                     [&](const char* key) { return condition.key == key; }) == std::end(kFilterKeys)) {
      throw_usage("--filter: unknown key {}; there are: {}", quoted(condition.key),
                  join(Strings(std::begin(kFilterKeys), std::end(kFilterKeys)), ", "));
    }
    if (condition.key == "status") {
      static const Strings kStates = {"created", "running", "paused",      "stopping",   "stopped",
                                      "exited",  "unknown", "initialized", "configured", "removing"};
      if (std::find(kStates.begin(), kStates.end(), condition.value) == kStates.end()) {
        throw_usage("--filter: unknown status {}", quoted(condition.value));
      }
    }
    if (condition.key == "exited" && !to_int(condition.value, 0, 255)) {
      throw_usage("--filter: exited takes an exit code, not {}", quoted(condition.value));
    }
    if (condition.key == "before" || condition.key == "since") {
      condition.moment = store::get(invocation.context.layout, condition.value).created;
    }
    if (condition.key == "until") condition.moment = parse_moment(condition.value, "--filter until");
    if (condition.key == "name")
      condition.pattern = filter_pattern("name", without_slash(condition.value));
    else if (condition.key == "ancestor" || condition.key == "command" ||
             (condition.key == "id" && !is_id_prefix(condition.value)))
      condition.pattern = filter_pattern(condition.key, condition.value);
    if (condition.key == "restart-policy") {
      static const Strings kPolicies = {"no", "always", "on-failure", "unless-stopped"};
      condition.value = policy_name(condition.value);
      if (std::find(kPolicies.begin(), kPolicies.end(), condition.value) == kPolicies.end())
        throw_usage("--filter: unknown restart policy {}", quoted(condition.value));
    }
    conditions_.push_back(std::move(condition));
  }
}

bool ContainerFilter::mentions_status() const noexcept {
  return std::any_of(conditions_.begin(), conditions_.end(),
                     [](const Condition& c) { return c.key == "status" || c.key == "exited"; });
}

bool ContainerFilter::matches(const Condition& condition, const store::ContainerRecord& record,
                              const store::ContainerStatus& status) const {
  const std::string &key = condition.key, &value = condition.value;
  if (key == "id") return condition.pattern ? condition.pattern->found_in(record.id) : starts_with(record.id, value);
  if (key == "name") return condition.pattern->found_in(record.name);
  if (key == "command") return condition.pattern->found_in(first_word(record));
  if (key == "restart-policy") return policy_name(record.config.restart_policy) == value;
  if (key == "label") return label_fits(engine::shown_labels(record), value);
  if (key == "label!") return !label_fits(engine::shown_labels(record), value);
  if (key == "status") {
    const std::string wanted = value == "stopped" ? "exited" : value;
    return wanted == store::status_name(status.status);
  }
  if (key == "exited") {
    return status.status == store::Status::exited && status.last_exit &&
           status.last_exit->code == to_int(value, 0, 255).value_or(-1);
  }
  if (key == "ancestor") return image_matches(record, value, *condition.pattern);
  if (key == "before" || key == "until") return record.created < condition.moment;
  if (key == "since") return record.created > condition.moment;
  if (key == "volume") {
    return std::any_of(
        record.config.mounts.begin(), record.config.mounts.end(),
        [&v = value](const store::MountRequest& mount) { return mount.source == v || mount.target == v; });
  }
  if (key == "health") return status.health == value || (value == "none" && status.health.empty());
  if (key == "network") {
    const auto& networks = record.config.networks;
    if (networks.empty()) return value == "slirp4netns";
    return std::any_of(networks.begin(), networks.end(), [&v = value](const std::string& network) {
      return network == v || starts_with(network, v + ":");
    });
  }
  return false;
}

bool ContainerFilter::matches(const store::ContainerRecord& record, const store::ContainerStatus& status) const {
  for (const Condition& condition : conditions_) {
    // Conditions on one key are alternatives, except for labels and before, where all must hold.
    const bool all = condition.key == "label" || condition.key == "label!" || condition.key == "before";
    bool fits = matches(condition, record, status);
    if (!fits && !all) {
      fits = std::any_of(conditions_.begin(), conditions_.end(), [&](const Condition& other) {
        return other.key == condition.key && matches(other, record, status);
      });
    }
    if (!fits) return false;
  }
  return true;
}

std::chrono::system_clock::time_point parse_moment(const std::string& text, const char* what, Moment direction) {
  using std::chrono::system_clock;
  if (text.empty()) throw_usage("{}: a time is missing", what);
  const size_t dot = text.find('.');
  if (auto seconds = to_int(text.substr(0, dot), 0);
      seconds && (dot == std::string::npos || to_int(text.substr(dot + 1), 0))) {
    std::string fraction = dot == std::string::npos ? "" : text.substr(dot + 1);
    fraction.resize(9, '0');
    return system_clock::time_point(std::chrono::seconds(*seconds) +
                                    std::chrono::nanoseconds(to_int(fraction, 0).value_or(0)));
  }
  if (text.size() >= 10 && text[4] == '-' && text[7] == '-') {
    std::string full = text;
    if (full.size() == 10) full += "T00:00:00";
    if (full[10] == ' ') full[10] = 'T';
    if (full.size() == 16) full += ":00";
    const bool has_zone = full.find_first_of("Z+", 11) != std::string::npos || full.find('-', 11) != std::string::npos;
    try {
      return parse_rfc3339(has_zone ? full : full + "Z");
    } catch (const Error&) {
      throw_usage("{}: {} is not a time: RFC 3339, Unix seconds or a duration like 10m", what, quoted(text));
    }
  }
  const auto distance = std::chrono::duration_cast<system_clock::duration>(parse_duration(text, what));
  return direction == Moment::ago ? system_clock::now() - distance : system_clock::now() + distance;
}

}  // namespace kelp::cli
