#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "image/progress.h"
#include "store/layout.h"

namespace kelp::store {
struct IdMapping;
}

namespace kelp::image {

/// The command line of one verb, after the options that every verb has were taken off.
/// `--name value` and `--name=value` are the same; a flag may be given as `--name=false`.
class Arguments {
 public:
  std::map<std::string, std::vector<std::string>, std::less<>> options;  ///< without "--"
  std::vector<std::string> positional;

  /// The last value given; nullopt when the option was not given.
  [[nodiscard]] std::optional<std::string> value(std::string_view name) const;
  /// All values of an option that may be repeated.
  [[nodiscard]] std::vector<std::string> values(std::string_view name) const;
  /// nullopt when not given. throws UsageError when the value is not a boolean
  [[nodiscard]] std::optional<bool> boolean(std::string_view name) const;
  [[nodiscard]] bool flag(std::string_view name) const { return boolean(name).value_or(false); }
  /// throws  UsageError unless there are between min and max positional arguments
  void need_positional(size_t min, size_t max) const;
};

/// What a verb works with.
struct VerbRequest {
  store::Layout layout;  ///< data and cache are set; run is empty (no run directory here)
  Arguments arguments;
  Progress& progress;
  const store::IdMapping& map;  ///< the id map that layers are unpacked under
};

/// One verb of kelp-image.
///
/// values   options that take a value, separated by blanks: "platform authfile"
/// flags    options that may stand alone (boolean)
/// run      does the work and returns the JSON document for standard output ("" = print nothing)
/// unpacks  it may have made layers: they are made durable in the background, after the result was printed
struct Verb {
  const char* name;
  const char* values;
  const char* flags;
  std::string (*run)(VerbRequest& request);
  bool unpacks = false;
};

/// Takes the words after the verb apart. throws UsageError naming an unknown option or a missing value
Arguments parse_arguments(const std::vector<std::string>& words, const Verb& verb);

// One function per verb; the table stands in main.cc.
std::string verb_pull(VerbRequest& request);
std::string verb_load(VerbRequest& request);           // load.cc
std::string verb_unpack(VerbRequest& request);         // load.cc
std::string verb_give_up_blobs(VerbRequest& request);  // lone_trees.cc
std::string verb_save(VerbRequest& request);           // save.cc
std::string verb_import(VerbRequest& request);         // import.cc
std::string verb_pack(VerbRequest& request);           // import.cc
std::string verb_ping(VerbRequest& request);           // ping.cc
std::string verb_registries(VerbRequest& request);     // registries.cc
std::string verb_commit(VerbRequest& request);         // commit.cc
std::string verb_untar(VerbRequest& request);          // commit.cc
std::string verb_take_over(VerbRequest& request);      // take_over.cc
std::string verb_push(VerbRequest& request);
std::string verb_login(VerbRequest& request);
std::string verb_logout(VerbRequest& request);        // login.cc
std::string verb_search(VerbRequest& request);        // search.cc
std::string verb_manifest(VerbRequest& request);      // manifest_list.cc
std::string verb_store_verify(VerbRequest& request);  // verify.cc

}  // namespace kelp::image
