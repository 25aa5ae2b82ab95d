#include "spec/config_changes.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"

namespace kelp::spec {

namespace {

[[noreturn]] void fail(std::string_view change, std::string_view reason) {
  throw_usage("change {}: {}", kelp::quoted(change), reason);
}

/// Words as a Containerfile has them: blanks separate, quotes and backslashes keep them together.
std::vector<std::string> words_of(std::string_view text, std::string_view change) {
  std::vector<std::string> result;
  std::string word;
  bool open = false;
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote != 0) {
      if (c == quote) {
        quote = 0;
      } else if (c == '\\' && quote == '"' && i + 1 < text.size()) {
        word += text[++i];
      } else {
        word += c;
      }
    } else if (c == '"' || c == '\'') {
      quote = c;
      open = true;
    } else if (c == '\\' && i + 1 < text.size()) {
      word += text[++i];
      open = true;
    } else if (c == ' ' || c == '\t') {
      if (open) result.push_back(std::exchange(word, {}));
      open = false;
    } else {
      word += c;
      open = true;
    }
  }
  if (quote != 0) fail(change, "a quote is not closed");
  if (open) result.push_back(std::move(word));
  return result;
}

/// ["a", "b"] or nothing.
std::optional<Strings> exec_form(std::string_view text, std::string_view change) {
  if (!starts_with(text, "[")) return std::nullopt;
  const auto value = nlohmann::json::parse(text, nullptr, false);
  if (!value.is_array()) fail(change, "not a JSON list of strings");
  Strings result;
  for (const auto& entry : value) {
    if (!entry.is_string()) fail(change, "not a JSON list of strings");
    result.push_back(entry.get<std::string>());
  }
  return result;
}

/// CMD and ENTRYPOINT: the shell form runs in a shell.
Strings command_form(const ImageRunConfig& config, std::string_view text, std::string_view change) {
  if (auto words = exec_form(text, change)) return std::move(*words);
  Strings result = config.shell.empty() ? Strings{"/bin/sh", "-c"} : config.shell;
  result.emplace_back(text);
  return result;
}

/// "A=b C=d" or "A b c".
std::vector<std::pair<std::string, std::string>> pairs_of(std::string_view text, std::string_view change) {
  std::vector<std::pair<std::string, std::string>> result;
  const std::vector<std::string> words = words_of(text, change);
  if (words.empty()) fail(change, "needs NAME=VALUE");
  if (words[0].find('=') == std::string::npos) {
    if (words.size() < 2) fail(change, "needs NAME=VALUE");
    const size_t rest = text.find_first_of(" \t");
    result.emplace_back(words[0], std::string(trim(text.substr(rest))));
    return result;
  }
  for (const std::string& word : words) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos || equals == 0) fail(change, "needs NAME=VALUE");
    result.emplace_back(word.substr(0, equals), word.substr(equals + 1));
  }
  return result;
}

void add_sorted(Strings& list, std::string entry) {
  const auto place = std::lower_bound(list.begin(), list.end(), entry);
  if (place == list.end() || *place != entry) list.insert(place, std::move(entry));
}

void add_ports(ImageRunConfig& config, std::string_view text, std::string_view change) {
  for (const std::string& word : words_of(text, change)) {
    const size_t slash = word.find('/');
    const std::string protocol = slash == std::string::npos ? "tcp" : to_lower(word.substr(slash + 1));
    if (protocol != "tcp" && protocol != "udp" && protocol != "sctp") fail(change, "the protocol is tcp, udp or sctp");
    const std::string range = word.substr(0, slash);
    const size_t dash = range.find('-');
    const auto first = to_int(range.substr(0, dash), 1, 65535);
    const auto last = dash == std::string::npos ? first : to_int(range.substr(dash + 1), 1, 65535);
    if (!first || !last || *last < *first) fail(change, "not a port (1 to 65535) or range of ports");
    for (std::int64_t port = *first; port <= *last; ++port) {
      add_sorted(config.exposed_ports, fmt::format("{}/{}", port, protocol));
    }
  }
}

std::string joined_path(const std::string& base, std::string_view path) {
  if (starts_with(path, "/")) return std::string(path);
  return (base.empty() || base == "/" ? "/" : base + "/") + std::string(path);
}

}  // namespace

void apply_change(ImageRunConfig& config, std::string_view change) {
  const std::string_view text = trim(change);
  const size_t end = text.find_first_of(" \t=");
  if (end == std::string_view::npos) fail(change, "needs an instruction and a value");
  const std::string word = to_lower(text.substr(0, end));
  const std::string_view value = trim(text.substr(end + 1));
  if (value.empty()) fail(change, "the value is empty");
  if (word == "cmd") {
    config.cmd = command_form(config, value, change);
  } else if (word == "entrypoint") {
    config.entrypoint = command_form(config, value, change);
  } else if (word == "env") {
    for (auto& [name, content] : pairs_of(value, change)) {
      const std::string prefix = name + "=";
      const auto old = std::find_if(config.env.begin(), config.env.end(),
                                    [&](const std::string& entry) { return starts_with(entry, prefix); });
      if (old != config.env.end()) {
        *old = prefix + content;
      } else {
        config.env.push_back(prefix + content);
      }
    }
  } else if (word == "expose") {
    add_ports(config, value, change);
  } else if (word == "label") {
    for (auto& [name, content] : pairs_of(value, change)) config.labels[name] = content;
  } else if (word == "onbuild") {
    config.on_build.emplace_back(value);
  } else if (word == "stopsignal") {
    config.stop_signal = value;
  } else if (word == "user") {
    config.user = value;
  } else if (word == "volume") {
    auto paths = exec_form(value, change);
    for (std::string& path : paths ? *paths : words_of(value, change)) add_sorted(config.volumes, std::move(path));
  } else if (word == "workdir") {
    config.working_dir = joined_path(config.working_dir, value);
  } else {
    fail(change,
         "the instructions are CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR");
  }
}

}  // namespace kelp::spec
