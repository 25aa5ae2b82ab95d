// Why not an option library: scripts depend on the spellings of Go's pflag. CLI11 takes the word after
// "--entrypoint=" for its value, needs 0.6 ms to build the 130 options of `run` (a whole start without a network has
// about 5) and brings iostream and std::locale along. What is left to do is below.
#include "cli/option_set.h"

#include <algorithm>
#include <limits>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"

namespace kelp::cli {
namespace {

std::string option_title(const Option& option) {
  if (option.letter != 0) return fmt::format("-{}, --{}", option.letter, option.name);
  return fmt::format("--{}", option.name);
}

[[noreturn]] void bad_value(const Option& option, std::string_view value, std::string_view wanted) {
  throw UsageError(fmt::format("invalid value {} for {}: must be {}", quoted(value), option_title(option), wanted),
                   option.wrong_value_code);
}

std::int64_t read_int(const Option& option, const std::string& value, std::int64_t min, std::int64_t max) {
  const auto number = to_int(value, min, max);
  if (!number && min == 0) bad_value(option, value, "a whole number, zero or more");
  if (!number) bad_value(option, value, "a whole number");
  return *number;
}

template <typename T>
std::function<void(const std::string&)> integer_setter(const Option& option, T& target) {
  return [&option, &target](const std::string& value) {
    using Number = T;
    target = static_cast<Number>(read_int(option, value, std::numeric_limits<Number>::min(),
                                          static_cast<std::int64_t>(std::numeric_limits<Number>::max())));
  };
}
template <typename T>
std::function<void(const std::string&)> integer_setter(const Option& option, std::optional<T>& target) {
  return [&option, &target](const std::string& value) {
    target = static_cast<T>(read_int(option, value, std::numeric_limits<T>::min(),
                                     static_cast<std::int64_t>(std::numeric_limits<T>::max())));
  };
}

bool read_bool(const Option& option, const std::string& value) {
  const auto answer = to_bool(value);
  if (!answer) bad_value(option, value, "true or false");
  return *answer;
}

double read_decimal(const Option& option, const std::string& value) {
  // strtod follows the C locale here: kelp never calls setlocale.
  char* end = nullptr;
  const double number = std::strtod(value.c_str(), &end);
  if (value.empty() || *end != '\0' || !(number >= -1e18 && number <= 1e18)) bad_value(option, value, "a number");
  return number;
}

}  // namespace

const char* complete_name(Complete kind) noexcept {
  switch (kind) {
    case Complete::none:
      return "none";
    case Complete::file:
      return "file";
    case Complete::directory:
      return "directory";
    case Complete::container:
      return "container";
    case Complete::running:
      return "running";
    case Complete::stopped:
      return "stopped";
    case Complete::paused:
      return "paused";
    case Complete::tree:
      return "tree";
    case Complete::object:
      return "object";
    case Complete::mount:
      return "mount";
    case Complete::registry:
      return "registry";
    case Complete::capability:
      return "capability";
    case Complete::user:
      return "user";
    case Complete::group:
      return "group";
    case Complete::image:
      return "image";
    case Complete::volume:
      return "volume";
    case Complete::network:
      return "network";
    case Complete::secret:
      return "secret";
    case Complete::signal:
      return "signal";
    case Complete::command:
      return "command";
    case Complete::environment:
      return "environment";
  }
  return "none";
}

const char* kind_name(Kind kind) noexcept {
  switch (kind) {
    case Kind::flag:
      return "flag";
    case Kind::text:
      return "text";
    case Kind::number:
      return "number";
    case Kind::decimal:
      return "decimal";
    case Kind::size:
      return "size";
    case Kind::duration:
      return "duration";
    case Kind::list:
      return "list";
    case Kind::csv:
      return "csv";
    case Kind::map:
      return "map";
  }
  return "text";
}

Option& OptionSet::add(std::string_view names, Kind kind, std::string_view value, std::string_view help) {
  Option& option = options_.emplace_back();
  const size_t comma = names.find(',');
  option.name = names.substr(0, comma);
  if (comma != std::string_view::npos) option.letter = names[comma + 1];
  option.kind = kind;
  option.value = value;
  option.help = help;
  option.group = group_;
  return option;
}

Option& OptionSet::flag(std::string_view names, bool& target, std::string_view help) {
  Option& option = add(names, Kind::flag, {}, help);
  option.set = [&option, &target](const std::string& value) { target = read_bool(option, value); };
  return option;
}
Option& OptionSet::flag(std::string_view names, std::optional<bool>& target, std::string_view help) {
  Option& option = add(names, Kind::flag, {}, help);
  option.set = [&option, &target](const std::string& value) { target = read_bool(option, value); };
  return option;
}
Option& OptionSet::text(std::string_view names, std::string& target, std::string_view value, std::string_view help) {
  Option& option = add(names, Kind::text, value, help);
  option.set = [&target](const std::string& given) { target = given; };
  return option;
}
Option& OptionSet::text(std::string_view names, std::optional<std::string>& target, std::string_view value,
                        std::string_view help) {
  Option& option = add(names, Kind::text, value, help);
  option.set = [&target](const std::string& given) { target = given; };
  return option;
}
Option& OptionSet::list(std::string_view names, Strings& target, std::string_view value, std::string_view help) {
  Option& option = add(names, Kind::list, value, help);
  option.set = [&target](const std::string& given) { target.push_back(given); };
  return option;
}
Option& OptionSet::csv(std::string_view names, Strings& target, std::string_view value, std::string_view help) {
  return csv(
      names, [&target](const std::string& field) { target.push_back(field); }, value, help);
}
Option& OptionSet::csv(std::string_view names, std::function<void(const std::string&)> take, std::string_view value,
                       std::string_view help) {
  Option& option = add(names, Kind::csv, value, help);
  option.set = [&option, take = std::move(take)](const std::string& given) {
    for (const auto& field : split_csv(given, option_title(option))) take(field);
  };
  return option;
}
Option& OptionSet::map(std::string_view names, StringMap& target, std::string_view value, std::string_view help) {
  Option& option = add(names, Kind::map, value, help);
  option.set = [&option, &target](const std::string& given) {
    const size_t equals = given.find('=');
    if (equals == 0 || given.empty()) bad_value(option, given, "key=value");
    target[given.substr(0, equals)] = equals == std::string::npos ? "" : given.substr(equals + 1);
  };
  return option;
}
Option& OptionSet::number(std::string_view names, std::int64_t& target, std::string_view value, std::string_view help) {
  Option& option = add(names, Kind::number, value, help);
  option.set = integer_setter(option, target);
  return option;
}
Option& OptionSet::number(std::string_view names, int& target, std::string_view value, std::string_view help) {
  Option& option = add(names, Kind::number, value, help);
  option.set = integer_setter(option, target);
  return option;
}
Option& OptionSet::number(std::string_view names, unsigned& target, std::string_view value, std::string_view help) {
  Option& option = add(names, Kind::number, value, help);
  option.set = integer_setter(option, target);
  return option;
}
Option& OptionSet::number(std::string_view names, std::optional<std::int64_t>& target, std::string_view value,
                          std::string_view help) {
  Option& option = add(names, Kind::number, value, help);
  option.set = integer_setter(option, target);
  return option;
}
Option& OptionSet::number(std::string_view names, std::optional<int>& target, std::string_view value,
                          std::string_view help) {
  Option& option = add(names, Kind::number, value, help);
  option.set = integer_setter(option, target);
  return option;
}
Option& OptionSet::number(std::string_view names, std::optional<unsigned>& target, std::string_view value,
                          std::string_view help) {
  Option& option = add(names, Kind::number, value, help);
  option.set = integer_setter(option, target);
  return option;
}
Option& OptionSet::decimal(std::string_view names, std::optional<double>& target, std::string_view value,
                           std::string_view help) {
  Option& option = add(names, Kind::decimal, value, help);
  option.set = [&option, &target](const std::string& given) { target = read_decimal(option, given); };
  return option;
}
Option& OptionSet::size(std::string_view names, std::optional<std::int64_t>& target, std::string_view help) {
  Option& option = add(names, Kind::size, "SIZE", help);
  option.set = [&option, &target](const std::string& given) {
    target.reset();  // "" takes back what was given
    if (!given.empty()) target = given == "-1" ? -1 : parse_size(given, option_title(option));
  };
  return option;
}
Option& OptionSet::duration(std::string_view names, std::chrono::nanoseconds& target, std::string_view help) {
  Option& option = add(names, Kind::duration, "DURATION", help);
  option.set = [&option, &target](const std::string& given) {
    target = parse_duration(given, option_title(option), std::chrono::seconds(1));
  };
  return option;
}
Option& OptionSet::custom(std::string_view names, Kind kind, std::function<void(const std::string&)> set,
                          std::string_view value, std::string_view help) {
  Option& option = add(names, kind, value, help);
  option.set = std::move(set);
  return option;
}

void OptionSet::arguments(std::string_view usage, int min, int max, Complete completes) {
  usage_ = usage;
  min_ = min;
  max_ = max;
  argument_completes_ = completes;
}

void OptionSet::mark_inherited() {
  for (; inherited_from_ < options_.size(); ++inherited_from_) options_[inherited_from_].inherited = true;
}

const Option* OptionSet::find_long(std::string_view name) const noexcept {
  for (const Option& option : options_) {
    if (option.name == name || (!option.alias.empty() && option.alias == name)) return &option;
  }
  return nullptr;
}

const Option* OptionSet::find_letter(char letter) const noexcept {
  for (const Option& option : options_) {
    if (option.letter == letter) return &option;
  }
  return nullptr;
}

bool OptionSet::given(std::string_view long_name) const noexcept {
  return std::any_of(seen_.begin(), seen_.end(), [&](const Option* option) { return option->name == long_name; });
}

size_t OptionSet::read_long(const Strings& words, size_t at, std::vector<Occurrence>& found) const {
  const std::string& word = words[at];
  const size_t equals = word.find('=');
  const std::string name = word.substr(2, equals == std::string::npos ? equals : equals - 2);
  const Option* option = find_long(name);
  if (option == nullptr) {
    if (name == "help") {
      help_asked_ = true;
      return at + 1;
    }
    std::vector<std::string> names;
    for (const Option& other : options_) names.emplace_back(other.name);
    const std::string near = nearest(name, names);
    if (near.empty()) throw_usage("unknown option {}", printable("--" + name));
    throw_usage("unknown option {}; did you mean --{}?", printable("--" + name), near);
  }
  if (equals != std::string::npos) {
    found.push_back({option, word.substr(equals + 1)});
    return at + 1;
  }
  if (option->kind == Kind::flag || !option->implied.empty()) {
    found.push_back({option, option->kind == Kind::flag ? "true" : std::string(option->implied)});
    return at + 1;
  }
  if (at + 1 == words.size()) throw_usage("{} needs a value", option_title(*option));
  found.push_back({option, words[at + 1]});
  return at + 2;
}

size_t OptionSet::read_letters(const Strings& words, size_t at, std::vector<Occurrence>& found) const {
  const std::string& word = words[at];
  for (size_t i = 1; i < word.size(); ++i) {
    const Option* option = find_letter(word[i]);
    if (option == nullptr) {
      if (word[i] == 'h') {
        help_asked_ = true;
        return at + 1;
      }
      throw_usage("unknown option {} in {}", quoted(std::string{'-', word[i]}), quoted(word));
    }
    const bool more = i + 1 < word.size();
    if (more && word[i + 1] == '=') {
      found.push_back({option, word.substr(i + 2)});
      return at + 1;
    }
    if (option->kind == Kind::flag || !option->implied.empty()) {
      found.push_back({option, option->kind == Kind::flag ? "true" : std::string(option->implied)});
      continue;
    }
    if (more) {
      found.push_back({option, word.substr(i + 1)});
      return at + 1;
    }
    if (at + 1 == words.size()) throw_usage("{} needs a value", option_title(*option));
    found.push_back({option, words[at + 1]});
    return at + 2;
  }
  return at + 1;
}

void OptionSet::apply(const std::vector<Occurrence>& found) {
  for (const Occurrence& occurrence : found) {
    const Option& option = *occurrence.option;
    seen_.push_back(&option);
    std::string value = occurrence.value;
    if (value.empty()) value = option.when_empty;
    if (option.spelling != nullptr) value = option.spelling(value);
    if (option.kind == Kind::flag) read_bool(option, value);
    if (!option.choices.empty() &&
        std::find(option.choices.begin(), option.choices.end(), value) == option.choices.end()) {
      std::string words;
      for (auto choice : option.choices) words += (words.empty() ? "" : ", ") + std::string(choice);
      bad_value(option, occurrence.value, "one of " + words);
    }
    option.set(value);
  }
}

Strings OptionSet::parse(const Strings& words, std::string_view command) {
  Strings rest;
  try {
    std::vector<Occurrence> found;
    size_t at = 0;
    while (at < words.size() && !help_asked_) {
      const std::string& word = words[at];
      if (word == "--") {
        rest.insert(rest.end(), words.begin() + static_cast<std::ptrdiff_t>(at) + 1, words.end());
        break;
      }
      if (word.size() > 2 && word[0] == '-' && word[1] == '-') {
        at = read_long(words, at, found);
      } else if (word.size() > 1 && word[0] == '-') {
        at = read_letters(words, at, found);
      } else if (!interspersed_) {
        rest.assign(words.begin() + static_cast<std::ptrdiff_t>(at), words.end());
        break;
      } else {
        rest.push_back(word);
        ++at;
      }
    }
    if (help_asked_) return {};
    apply(found);
    const int count = static_cast<int>(std::min<size_t>(rest.size(), 1'000'000));
    if (count < min_) throw_usage("{} needs {}", command, usage_.empty() ? "an argument" : usage_);
    if (max_ >= 0 && count > max_) {
      if (max_ == 0) throw_usage("{} takes no arguments, got {}", command, quoted(rest.front()));
      throw_usage("{} takes at most {} argument{}, got {}", command, max_, max_ == 1 ? "" : "s", count);
    }
  } catch (UsageError& error) {
    if (error.hint().empty()) error.with_hint(fmt::format("see '{} --help'", command));
    throw;
  }
  return rest;
}

}  // namespace kelp::cli
