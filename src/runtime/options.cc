#include "runtime/options.h"

#include "base/error.h"
#include "base/text.h"

namespace kelp::runtime {
namespace {

const OptionSpec* find_spec(std::span<const OptionSpec> specs, std::string_view name) {
  for (const OptionSpec& spec : specs)
    if (name == spec.name || (name.size() == 1 && spec.letter == name[0])) return &spec;
  return nullptr;
}

}  // namespace

void Options::parse(std::span<const OptionSpec> specs, const std::vector<std::string>& args, size_t at,
                    bool stop_at_word) {
  for (size_t i = at; i < args.size(); ++i) {
    const std::string& word = args[i];
    if (word.size() < 2 || word[0] != '-') {
      if (stop_at_word) {
        words_.insert(words_.end(), args.begin() + static_cast<std::ptrdiff_t>(i), args.end());
        return;
      }
      words_.push_back(word);
      continue;
    }
    if (word == "--") {
      words_.insert(words_.end(), args.begin() + static_cast<std::ptrdiff_t>(i) + 1, args.end());
      return;
    }
    std::string_view name = std::string_view(word).substr(word[1] == '-' ? 2 : 1);
    std::optional<std::string> value;
    if (const size_t equals = name.find('='); equals != std::string_view::npos) {
      value = name.substr(equals + 1);
      name = name.substr(0, equals);
    }
    const OptionSpec* spec = find_spec(specs, name);
    if (spec == nullptr) throw UsageError(fmt::format("unknown option {}", printable(word))).with_hint("see --help");
    if (spec->value == nullptr) {
      const auto on = to_bool(value.value_or("true"));
      if (!on) throw_usage("option --{}: {} is neither true nor false", spec->name, quoted(*value));
      values_[spec->name] = {*on ? "true" : "false"};
      continue;
    }
    if (!value) {
      if (i + 1 >= args.size()) throw_usage("option --{} needs a value", spec->name);
      value = args[++i];
    }
    values_[spec->name].push_back(*value);
  }
}

bool Options::flag(std::string_view name) const { return value(name) == "true"; }

std::string Options::value(std::string_view name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? std::string() : found->second.back();
}

std::vector<std::string> Options::all(std::string_view name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? std::vector<std::string>() : found->second;
}

int Options::number(std::string_view name, int absent, int min, int max) const {
  if (!has(name)) return absent;
  const auto parsed = to_int(value(name), min, max);
  if (!parsed) throw_usage("option --{}: {} is no number from {} to {}", name, quoted(value(name)), min, max);
  return static_cast<int>(*parsed);
}

}  // namespace kelp::runtime
