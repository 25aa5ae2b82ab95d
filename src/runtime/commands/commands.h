#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/options.h"

namespace kelp::runtime {

/// What stands before the command.
struct GlobalOptions {
  std::string root;
  bool systemd_cgroup = false;
  bool no_cgroup = false;  ///< --cgroup-manager disabled
  std::string criu;        ///< program of checkpoint and restore, "" = criu in PATH
  bool rootless = true;    ///< --rootless false: no user namespace unless the configuration has one
};

/// One call of a command.
struct Call {
  const GlobalOptions& global;
  const Options& options;
  const std::vector<std::string>& words;  ///< after the options
};

struct Command {
  const char* name;
  const char* usage;  ///< words after the options
  const char* help;
  std::span<const OptionSpec> options;
  int (*run)(const Call&);
  size_t min_words, max_words;
  bool words_are_payload = false;  ///< options end at the first word
};

/// Each command stands in the file of its name; the table is in main.cc.
extern const Command kCreate, kStart, kRun, kState, kKill, kDelete, kExec, kList, kPs, kPause, kResume, kSpec,
    kFeatures, kUpdate, kEvents, kCheckpoint, kRestore;

}  // namespace kelp::runtime
