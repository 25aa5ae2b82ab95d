#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kelp::runtime {

/// One option of a command. `value` is its argument's name in --help; null: a switch.
struct OptionSpec {
  const char* name;
  char letter;  ///< 0 = none
  const char* value;
  const char* help;
  bool hidden = false;  ///< private between kelp's own programs
};

/// Options of one command line, as runc's parser takes them: --name value, --name=value, -n value, -name value,
/// --switch, --switch=false; "--" ends them.
class Options {
 public:
  /// Takes what belongs to `specs` from args[*at…]; stops at the first other word when `stop_at_word` (what follows is
  /// the payload's or the command's), else collects the words. throws UsageError naming the option.
  void parse(std::span<const OptionSpec> specs, const std::vector<std::string>& args, size_t at, bool stop_at_word);

  [[nodiscard]] bool flag(std::string_view name) const;
  [[nodiscard]] bool has(std::string_view name) const { return values_.find(name) != values_.end(); }
  /// The last one given; "" when absent.
  [[nodiscard]] std::string value(std::string_view name) const;
  [[nodiscard]] std::vector<std::string> all(std::string_view name) const;
  /// throws UsageError when it is not an integer of [min, max]
  [[nodiscard]] int number(std::string_view name, int absent, int min, int max) const;
  [[nodiscard]] const std::vector<std::string>& words() const noexcept { return words_; }

 private:
  std::map<std::string, std::vector<std::string>, std::less<>> values_;
  std::vector<std::string> words_;
};

}  // namespace kelp::runtime
