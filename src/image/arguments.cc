#include "base/error.h"
#include "base/text.h"
#include "image/verbs.h"

namespace kelp::image {

namespace {

constexpr std::string_view kCommonValues = "data cache progress-fd map-uids map-gids map-key";
constexpr std::string_view kCommonFlags = "give-up-blobs";

bool listed(std::string_view list, std::string_view word) {
  for (const std::string& entry : split(list, ' ')) {
    if (entry == word) return true;
  }
  return false;
}

}  // namespace

std::optional<std::string> Arguments::value(std::string_view name) const {
  const auto found = options.find(name);
  if (found == options.end()) return std::nullopt;
  return found->second.back();
}

std::vector<std::string> Arguments::values(std::string_view name) const {
  const auto found = options.find(name);
  return found == options.end() ? std::vector<std::string>{} : found->second;
}

std::optional<bool> Arguments::boolean(std::string_view name) const {
  const auto text = value(name);
  if (!text) return std::nullopt;
  const auto parsed = to_bool(*text);
  if (!parsed) throw_usage("--{}: {} is neither true nor false", name, quoted(*text));
  return parsed;
}

void Arguments::need_positional(size_t min, size_t max) const {
  if (positional.size() < min) throw_usage("{} more argument(s) needed", min - positional.size());
  if (positional.size() > max) throw_usage("unexpected argument {}", quoted(positional[max]));
}

Arguments parse_arguments(const std::vector<std::string>& words, const Verb& verb) {
  Arguments result;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == "--") {
      result.positional.insert(result.positional.end(), words.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                               words.end());
      break;
    }
    std::string name;
    if (starts_with(word, "--")) {
      name = word.substr(2);
    } else if (word.size() == 2 && word[0] == '-') {
      name = word.substr(1);
    } else {
      result.positional.push_back(word);
      continue;
    }
    std::optional<std::string> value;
    if (const size_t equals = name.find('='); equals != std::string::npos) {
      value = name.substr(equals + 1);
      name.resize(equals);
    }
    if (listed(kCommonValues, name) || listed(verb.values, name)) {
      if (!value) {
        if (i + 1 == words.size()) throw_usage("{}: --{} needs a value", verb.name, name);
        value = words[++i];
      }
    } else if (listed(kCommonFlags, name) || listed(verb.flags, name)) {
      if (!value) value = "true";
    } else {
      throw_usage("{}: unknown option {}", verb.name, quoted(word));
    }
    result.options[name].push_back(std::move(*value));
  }
  return result;
}

}  // namespace kelp::image
