#include "cli/run_values.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>

#include <nlohmann/json.hpp>

#include "base/csv.h"
#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"
#include "spec/image_docs.h"

namespace kelp::cli {
namespace {

constexpr std::string_view kUlimitNames[] = {"as",      "core",     "cpu",        "data",   "fsize", "locks",
                                             "memlock", "msgqueue", "nice",       "nofile", "nproc", "rss",
                                             "rtprio",  "rttime",   "sigpending", "stack"};

/// Lines without their "\r"; the last one may lack its newline.
std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> lines = split(text, '\n');
  for (auto& line : lines) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
  }
  return lines;
}

std::int64_t parse_limit_number(std::string_view number, std::string_view whole) {
  if (number == "-1" || number == "unlimited") return -1;
  const auto value = to_int(number, 0);
  if (!value) throw_usage("--ulimit {}: {} is not a number", kelp::quoted(whole), kelp::quoted(number));
  return *value;
}

/// The words of a JSON array of strings; nullopt when the text is none.
std::optional<Strings> json_words(std::string_view text) {
  if (text.empty() || text.front() != '[') return std::nullopt;
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_array()) return std::nullopt;
  Strings words;
  for (const auto& word : json) {
    if (!word.is_string()) return std::nullopt;
    words.push_back(word.get<std::string>());
  }
  return words;
}

}  // namespace

StringMap host_environment() {
  StringMap env;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const size_t equals = text.find('=');
    if (equals != std::string_view::npos) env.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return env;
}

void apply_env(StringMap& env, std::string_view text, const StringMap& host) {
  const size_t equals = text.find('=');
  const std::string name(text.substr(0, equals));
  if (name.empty()) throw_usage("--env {}: the name of the variable is missing", kelp::quoted(text));
  if (equals != std::string_view::npos) {
    env[name] = text.substr(equals + 1);
    return;
  }
  if (name.back() == '*') {
    const std::string_view prefix = std::string_view(name).substr(0, name.size() - 1);
    for (const auto& [key, value] : host) {
      if (starts_with(key, prefix)) env[key] = value;
    }
    return;
  }
  const auto found = host.find(name);
  if (found != host.end()) env[name] = found->second;
}

void apply_env_file(StringMap& env, std::string_view text, std::string_view origin, const StringMap& host) {
  size_t number = 0;
  for (const auto& line : lines_of(text)) {
    ++number;
    std::string_view entry = line;
    while (!entry.empty() && (entry.front() == ' ' || entry.front() == '\t')) entry.remove_prefix(1);
    if (entry.empty() || entry.front() == '#') continue;
    // A name may have a blank in it, as podman has it: "B = 2" is "B " and " 2".
    if (entry.front() == '=') throw_usage("--env-file {}:{}: {} is not NAME=value", origin, number, kelp::quoted(line));
    apply_env(env, entry, host);
  }
}

Strings env_list(const StringMap& env) {
  Strings list;
  for (const auto& [name, value] : env) list.push_back(name + "=" + value);
  return list;
}

Strings parse_entrypoint(std::string_view text) {
  if (text.empty()) return {};
  auto words = json_words(text);
  if (!words) return {std::string(text)};
  return *words == Strings{""} ? Strings{} : *words;
}

Strings parse_health_command(std::string_view text) {
  if (to_lower(text) == "none") return {"NONE"};
  auto words = json_words(text);
  if (!words) {
    // As HEALTHCHECK of a Containerfile, and so docker's users, begin it.
    const size_t space = text.find(' ');
    const std::string first(text.substr(0, space)), rest(space == text.npos ? "" : trim(text.substr(space)));
    if (first == "CMD" && !rest.empty()) {
      words.emplace({first});
      for (const std::string& word : split(rest, ' '))
        if (!word.empty()) words->push_back(word);
      return *words;
    }
    return {"CMD-SHELL", first == "CMD-SHELL" && !rest.empty() ? rest : std::string(text)};
  }
  if (words->empty()) throw_usage("--health-cmd {}: the list is empty", kelp::quoted(text));
  if (words->front() != "CMD" && words->front() != "CMD-SHELL" && words->front() != "NONE") {
    words->insert(words->begin(), "CMD");
  }
  return *words;
}

std::chrono::nanoseconds parse_health_duration(std::string_view text, std::string_view what) {
  if (text == "disable" && what == "--health-interval") return std::chrono::nanoseconds(0);
  const auto value = parse_duration(text, what, std::chrono::seconds(1));
  if (value < std::chrono::nanoseconds(0)) throw_usage("{} {}: must not be negative", what, kelp::quoted(text));
  if (value.count() == 0 && ends_with(what, "-timeout")) throw_usage("{} {}: must be greater than 0", what, text);
  return value;
}

void parse_restart(std::string_view text, std::string& policy, unsigned& max) {
  const size_t colon = text.find(':');
  const std::string word(text.substr(0, colon));
  if (word != "no" && word != "always" && word != "on-failure" && word != "unless-stopped" && !word.empty()) {
    throw_usage("--restart {}: must be no, always, unless-stopped or on-failure[:N]", kelp::quoted(text));
  }
  max = 0;
  if (colon != std::string_view::npos) {
    const auto number = to_int(text.substr(colon + 1), 0, 1'000'000'000);
    if (word != "on-failure") throw_usage("--restart {}: only on-failure takes a number", kelp::quoted(text));
    if (!number) throw_usage("--restart {}: must be on-failure:N", kelp::quoted(text));
    max = static_cast<unsigned>(*number);
  }
  policy = word.empty() ? "no" : word;
}

store::Ulimit parse_ulimit(std::string_view text) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos) throw_usage("--ulimit {}: must be NAME=SOFT[:HARD]", kelp::quoted(text));
  store::Ulimit limit;
  limit.name = to_lower(text.substr(0, equals));
  if (starts_with(limit.name, "rlimit_")) limit.name.erase(0, 7);
  if (std::find(std::begin(kUlimitNames), std::end(kUlimitNames), limit.name) == std::end(kUlimitNames)) {
    throw_usage("--ulimit {}: there is no limit {}", kelp::quoted(text), kelp::quoted(limit.name));
  }
  const std::string_view value = text.substr(equals + 1);
  const size_t colon = value.find(':');
  limit.soft = parse_limit_number(value.substr(0, colon), text);
  limit.hard = colon == std::string_view::npos ? limit.soft : parse_limit_number(value.substr(colon + 1), text);
  if (limit.hard != -1 && (limit.soft == -1 || limit.soft > limit.hard)) {
    throw_usage("--ulimit {}: the soft limit is above the hard limit", kelp::quoted(text));
  }
  return limit;
}

void add_ulimit(std::vector<store::Ulimit>& limits, store::Ulimit limit) {
  std::erase_if(limits, [&limit](const store::Ulimit& other) { return other.name == limit.name; });
  limits.push_back(std::move(limit));
}

std::vector<store::Ulimit> parse_limits_file(std::string_view text) {
  struct Row {
    std::string_view title, name;
  };
  static constexpr Row kRows[] = {
      {"Max cpu time", "cpu"},
      {"Max file size", "fsize"},
      {"Max data size", "data"},
      {"Max stack size", "stack"},
      {"Max core file size", "core"},
      {"Max resident set", "rss"},
      {"Max processes", "nproc"},
      {"Max open files", "nofile"},
      {"Max locked memory", "memlock"},
      {"Max address space", "as"},
      {"Max file locks", "locks"},
      {"Max pending signals", "sigpending"},
      {"Max msgqueue size", "msgqueue"},
      {"Max nice priority", "nice"},
      {"Max realtime priority", "rtprio"},
      {"Max realtime timeout", "rttime"},
  };
  std::vector<store::Ulimit> limits;
  for (const auto& line : lines_of(text)) {
    for (const Row& row : kRows) {
      if (!starts_with(line, row.title)) continue;
      Strings numbers;
      for (auto& word : split(std::string_view(line).substr(row.title.size()), ' ')) {
        if (!word.empty()) numbers.push_back(std::move(word));
      }
      if (numbers.size() < 2) continue;
      limits.push_back(
          {std::string(row.name), parse_limit_number(numbers[0], line), parse_limit_number(numbers[1], line)});
    }
  }
  return limits;
}

Strings parse_expose(std::string_view text) {
  const size_t slash = text.find('/');
  const std::string protocol = slash == std::string_view::npos ? "tcp" : to_lower(text.substr(slash + 1));
  if (protocol != "tcp" && protocol != "udp" && protocol != "sctp") {
    throw_usage("--expose {}: unknown protocol {}", kelp::quoted(text), kelp::quoted(protocol));
  }
  const std::string_view range = text.substr(0, slash);
  const size_t dash = range.find('-');
  const auto first = to_int(range.substr(0, dash), 1, 65535);
  const auto last = dash == std::string_view::npos ? first : to_int(range.substr(dash + 1), 1, 65535);
  if (!first || !last || *last < *first) {
    throw_usage("--expose {}: must be PORT[-PORT][/PROTOCOL] with ports from 1 to 65535", kelp::quoted(text));
  }
  Strings ports;
  for (auto port = *first; port <= *last; ++port) ports.push_back(fmt::format("{}/{}", port, protocol));
  return ports;
}

void apply_label_file(StringMap& labels, std::string_view text, std::string_view origin) {
  size_t number = 0;
  for (const auto& line : lines_of(text)) {
    ++number;
    const std::string_view entry = trim(line);
    if (entry.empty() || entry.front() == '#') continue;
    const size_t equals = entry.find('=');
    if (equals == 0) throw_usage("--label-file {}:{}: {} has no key", origin, number, kelp::quoted(line));
    labels[std::string(entry.substr(0, equals))] =
        equals == std::string_view::npos ? "" : std::string(entry.substr(equals + 1));
  }
}

void apply_key_value(StringMap& map, std::string_view text, std::string_view option) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0)
    throw_usage("{} {}: must be KEY=VALUE", option, kelp::quoted(text));
  map[std::string(text.substr(0, equals))] = text.substr(equals + 1);
}

void apply_key_values(StringMap& map, std::string_view text, std::string_view option) {
  Strings fields;
  if (text.find('"') == std::string_view::npos || text.front() == '"') fields = split_csv(text, option);
  const auto is_pair = [](const std::string& field) {
    return field.find('=') != std::string::npos && field.front() != '=';
  };
  if (fields.empty() || !std::all_of(fields.begin(), fields.end(), is_pair)) fields = {std::string(text)};
  if (!text.empty())
    for (const auto& field : fields) apply_key_value(map, field, option);
}

std::string check_health_log(std::string_view text) {
  if (text != "local" && (text.empty() || text.front() != '/'))
    throw_usage("--health-log-destination {}: local, or the absolute path of a directory", kelp::quoted(text));
  return std::string(text);
}

std::string check_detach_keys(std::string_view text) {
  for (const auto& key : split(text, ',')) {
    const std::string word = to_lower(key);
    const bool single = key.size() == 1;
    const bool control = starts_with(word, "ctrl-") && word.size() == 6 &&
                         (std::isalpha(static_cast<unsigned char>(word[5])) != 0 ||
                          std::string_view("@[\\]^_").find(word[5]) != std::string_view::npos);
    if (!single && !control) {
      throw_usage("--detach-keys {}: each key must be one character or ctrl-X with a letter or one of @ [ \\ ] ^ _",
                  kelp::quoted(text));
    }
  }
  return std::string(text);
}

std::string join_platform(const std::string& platform, const std::string& os, const std::string& arch,
                          const std::string& variant) {
  if (os.empty() && arch.empty() && variant.empty()) return platform;
  if (!platform.empty()) throw_usage("--platform and --os, --arch, --variant exclude each other");
  const spec::Platform here = spec::host_platform();
  std::string joined = (os.empty() ? here.os : os) + "/" + (arch.empty() ? here.architecture : arch);
  if (!variant.empty()) joined += "/" + variant;
  return joined;
}

std::string pull_policy(const std::string& text) {
  std::string word = text;
  if (!word.empty() && word.front() >= 'A' && word.front() <= 'Z')
    word.front() = static_cast<char>(word.front() - 'A' + 'a');
  if (word == "ifnotpresent" || text == "IfNotPresent") return "missing";
  return word == "ifnewer" || text == "IfNewer" ? "newer" : word;
}

std::string parse_attach(std::string_view text) {
  const std::string word = to_lower(text);
  if (word != "stdin" && word != "stdout" && word != "stderr") {
    throw_usage("--attach {}: must be stdin, stdout or stderr", kelp::quoted(text));
  }
  return word;
}

void check_add_host(std::string_view text) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos || colon == 0 || colon + 1 == text.size()) {
    throw_usage("--add-host {}: must be NAME:ADDRESS", kelp::quoted(text));
  }
}

}  // namespace kelp::cli
