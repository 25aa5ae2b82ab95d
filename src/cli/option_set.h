#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/csv.h"
#include "base/error.h"

namespace kelp::cli {

using Strings = std::vector<std::string>;
using StringMap = std::map<std::string, std::string>;

/// What TAB offers for a value.
enum class Complete {
  none,
  file,
  directory,
  container,
  running,
  stopped,
  paused,
  tree,    ///< a container or an image
  object,  ///< a container, an image or a volume
  image,
  volume,
  mount,  ///< the value of -v: a volume or a path
  network,
  secret,
  registry,
  capability,
  signal,
  user,
  group,
  command,
  environment,
};
const char* complete_name(Complete kind) noexcept;

/// How a value is written; `flag` takes none ("--rm", "--rm=false").
enum class Kind { flag, text, number, decimal, size, duration, list, csv, map };
const char* kind_name(Kind kind) noexcept;

/// One declared option. Text members point at literals, so a declaration costs next to nothing.
struct Option {
  std::string_view name;   ///< long name without dashes
  std::string_view alias;  ///< second long name ("net" for "network"), often empty
  char letter = 0;         ///< short name, 0 = none
  Kind kind = Kind::flag;
  std::string_view value;     ///< word for the value in the help: "FILE", "[IP:]PORT"
  std::string_view help;      ///< one line, lower case, no full stop
  std::string_view group;     ///< heading in the help
  std::string_view fallback;  ///< default as shown, "" = none worth showing
  std::string_view implied;   ///< value meant by the bare option, "" = a value is required
  std::vector<std::string_view> choices;
  std::string_view when_empty;                            ///< what "" stands for where choices are, "" = it is refused
  std::string (*spelling)(const std::string&) = nullptr;  ///< turns other spellings of a choice into the one shown
  int wrong_value_code = kExitFailure;                    ///< exit status when the value is none of the choices
  Complete completes = Complete::none;
  bool hidden = false;
  bool inherited = false;  ///< a global option, accepted after the command too
  std::function<void(const std::string&)> set;

  Option& one_of(std::vector<std::string_view> words) {
    choices = std::move(words);
    return *this;
  }
  Option& also_spelled(std::string (*turn)(const std::string&)) {
    spelling = turn;
    return *this;
  }
  /// "" is taken for `text`, as if the option were not given.
  Option& empty_means(std::string_view text) {
    when_empty = text;
    return *this;
  }
  Option& exits_with(int code) {
    wrong_value_code = code;
    return *this;
  }
  Option& complete(Complete what) {
    completes = what;
    return *this;
  }
  Option& shows(std::string_view text) {
    fallback = text;
    return *this;
  }
  Option& also(std::string_view other_name) {
    alias = other_name;
    return *this;
  }
  Option& implies(std::string_view text) {
    implied = text;
    return *this;
  }
  Option& hide() {
    hidden = true;
    return *this;
  }
  [[nodiscard]] bool repeats() const noexcept { return kind == Kind::list || kind == Kind::csv || kind == Kind::map; }
};

/// The options of one command, declared once: parsing, --help, man pages and completions come from here.
/// Names are written "long" or "long,l". Spellings are those of Go's pflag, which podman's and docker's users
/// have in their fingers and scripts: --name v, --name=v, --name=, -n v, -nv, -n=v, -it, --flag=false, "--".
/// Targets must live as long as the set.
class OptionSet {
 public:
  OptionSet() = default;
  OptionSet(const OptionSet&) = delete;
  OptionSet& operator=(const OptionSet&) = delete;

  /// Heading for the options declared from here on.
  void group(std::string_view name) { group_ = name; }

  Option& flag(std::string_view names, bool& target, std::string_view help);
  Option& flag(std::string_view names, std::optional<bool>& target, std::string_view help);
  Option& text(std::string_view names, std::string& target, std::string_view value, std::string_view help);
  Option& text(std::string_view names, std::optional<std::string>& target, std::string_view value,
               std::string_view help);
  /// Repeatable, each value taken whole.
  Option& list(std::string_view names, Strings& target, std::string_view value, std::string_view help);
  /// Repeatable, and each value split at commas (pflag's StringSlice).
  Option& csv(std::string_view names, Strings& target, std::string_view value, std::string_view help);
  /// `take` is called with each of the comma-separated fields; an empty value has none.
  Option& csv(std::string_view names, std::function<void(const std::string&)> take, std::string_view value,
              std::string_view help);
  /// Repeatable key=value; a bare key gives an empty value.
  Option& map(std::string_view names, StringMap& target, std::string_view value, std::string_view help);
  Option& number(std::string_view names, std::int64_t& target, std::string_view value, std::string_view help);
  Option& number(std::string_view names, int& target, std::string_view value, std::string_view help);
  Option& number(std::string_view names, unsigned& target, std::string_view value, std::string_view help);
  Option& number(std::string_view names, std::optional<std::int64_t>& target, std::string_view value,
                 std::string_view help);
  Option& number(std::string_view names, std::optional<int>& target, std::string_view value, std::string_view help);
  Option& number(std::string_view names, std::optional<unsigned>& target, std::string_view value,
                 std::string_view help);
  Option& decimal(std::string_view names, std::optional<double>& target, std::string_view value, std::string_view help);
  /// Bytes: "512m"; "" is as if it were not given.
  Option& size(std::string_view names, std::optional<std::int64_t>& target, std::string_view help);
  Option& duration(std::string_view names, std::chrono::nanoseconds& target, std::string_view help);
  /// Any other shape: `set` is called once for each occurrence, in order.
  Option& custom(std::string_view names, Kind kind, std::function<void(const std::string&)> set, std::string_view value,
                 std::string_view help);

  /// What stands after the options: text for the usage line, number of words allowed (max -1 = any number).
  void arguments(std::string_view usage, int min, int max, Complete completes = Complete::none);
  /// Options end at the first word that is none (run, create, exec: the rest belongs to the container).
  void stop_at_first_word() { interspersed_ = false; }
  /// A line or two below the usage line, examples at the end of the help; both optional.
  void describe(std::string_view text, std::string_view examples = {}) {
    description_ = text;
    examples_ = examples;
  }

  /// Marks the options declared since the last call as inherited from the program.
  void mark_inherited();

  /// Sets the targets and returns the words that are no options.
  /// throws UsageError naming the option; `command` ("kelp run") goes into the hint.
  Strings parse(const Strings& words, std::string_view command);
  /// true once parse() saw --help (or -h where no option has that letter); nothing else was checked then.
  [[nodiscard]] bool help_asked() const noexcept { return help_asked_; }
  /// true when the option stood on the command line.
  [[nodiscard]] bool given(std::string_view long_name) const noexcept;

  [[nodiscard]] const std::deque<Option>& options() const noexcept { return options_; }
  [[nodiscard]] std::string_view usage() const noexcept { return usage_; }
  [[nodiscard]] std::string_view description() const noexcept { return description_; }
  [[nodiscard]] std::string_view examples() const noexcept { return examples_; }
  [[nodiscard]] Complete argument_completion() const noexcept { return argument_completes_; }
  [[nodiscard]] bool interspersed() const noexcept { return interspersed_; }
  [[nodiscard]] int max_arguments() const noexcept { return max_; }

 private:
  struct Occurrence {
    const Option* option;
    std::string value;
  };
  Option& add(std::string_view names, Kind kind, std::string_view value, std::string_view help);
  [[nodiscard]] const Option* find_long(std::string_view name) const noexcept;
  [[nodiscard]] const Option* find_letter(char letter) const noexcept;
  size_t read_long(const Strings& words, size_t at, std::vector<Occurrence>& found) const;
  size_t read_letters(const Strings& words, size_t at, std::vector<Occurrence>& found) const;
  void apply(const std::vector<Occurrence>& found);

  std::deque<Option> options_;  // deque: declarations hand out references
  std::string_view group_ = "Options", usage_, description_, examples_;
  int min_ = 0, max_ = 0;
  Complete argument_completes_ = Complete::none;
  bool interspersed_ = true;
  mutable bool help_asked_ = false;
  size_t inherited_from_ = 0;
  std::vector<const Option*> seen_;
};

}  // namespace kelp::cli
