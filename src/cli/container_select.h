#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/pattern.h"
#include "cli/commands.h"
#include "cli/option_set.h"
#include "store/container_record.h"
#include "store/volumes.h"

namespace kelp::cli {

/// Which containers a command is about: names, or one of the options.
struct ContainerChoice {
  bool all = false, latest = false, ignore = false, running = false;
  Strings filters, cidfiles;
  int missing_code = kExitFailure;  ///< exit status when a name fits no container
};

/// Declares --all --latest --filter --cidfile (and --ignore, --running where asked for) for a command that takes
/// several containers.
struct ContainerChoiceOptions {
  bool filter = true, cidfile = true, ignore = false, running = false;
  const char* all_help = "all containers";
};
void add_container_choice(OptionSet& options, ContainerChoice& choice, const ContainerChoiceOptions& which);
void add_latest(OptionSet& options, bool& latest);

/// One container with how it was named.
struct Chosen {
  std::string word;  ///< as typed; the id for --all and friends
  store::ContainerRecord record;
};
/// The containers meant.
/// throws UsageError when names and options contradict each other or nothing is named; and when a name fits no
/// container (the last of these, those before it have been printed), so that nothing happens to the others
class ContainerSelection {
 public:
  ContainerSelection(Invocation& invocation, const ContainerChoice& choice, const char* what);

  /// Runs `act` for each, whatever becomes of the others. Returns 0, or throws the last error; those before it have
  /// been printed.
  int for_each(const std::function<void(const Chosen&)>& act);
  [[nodiscard]] const std::vector<Chosen>& chosen() const noexcept { return chosen_; }

 private:
  std::vector<Chosen> chosen_;
};

/// The one container of a command that takes a name or --latest; removes the name from the arguments.
store::ContainerRecord take_container(Invocation& invocation, bool latest);
/// The most recently created container; throws UsageError when there is none.
store::ContainerRecord latest_container(Invocation& invocation);

/// `key=value` conditions of --filter for containers; the same key several times means "or" (labels: "and").
/// throws UsageError for an unknown key or value
class ContainerFilter {
 public:
  ContainerFilter(Invocation& invocation, const Strings& conditions);
  [[nodiscard]] bool matches(const store::ContainerRecord& record, const store::ContainerStatus& status) const;
  [[nodiscard]] bool mentions_status() const noexcept;

 private:
  struct Condition {
    std::string key, value;
    std::chrono::system_clock::time_point moment;  ///< before, since, until
    std::optional<Pattern> pattern;                ///< name, ancestor, command, and an id with other than hex digits
  };
  [[nodiscard]] bool matches(const Condition& condition, const store::ContainerRecord& record,
                             const store::ContainerStatus& status) const;
  std::vector<Condition> conditions_;
};

/// --filter label=KEY or KEY=VALUE; a key with * fits any part of a label's.
bool label_fits(const store::StringMap& labels, const std::string& wanted);

/// throws UsageError for an unknown key or value of a filter of volumes
void check_volume_filters(const store::Layout& layout, const Strings& filters);
/// Checked conditions, with "or" and "and" as for containers.
bool volume_fits(const store::Layout& layout, const store::VolumeRecord& volume, const Strings& filters, bool used);

/// A value of --filter that is a regular expression. throws UsageError naming the key: it is none
Pattern filter_pattern(const std::string& key, const std::string& value);

/// Which way a duration counts from now.
enum class Moment { ago, ahead };
/// A point in time for --since, --until: RFC 3339, a date, a Unix time, or a duration from now. throws UsageError
std::chrono::system_clock::time_point parse_moment(const std::string& text, const char* what,
                                                   Moment direction = Moment::ago);

}  // namespace kelp::cli
