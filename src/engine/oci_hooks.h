#pragma once

#include <string>
#include <vector>

#include "spec/runtime_config.h"
#include "store/container_record.h"

namespace kelp::engine {

/// --hooks-dir: the hooks of all *.json files of these directories (form 1.0.0, as podman and CRI-O read it) that are
/// meant for a container, in the order of the files' names; a later directory's file replaces an earlier one's of the
/// same name. The annotations and the command are those of `config`.
///
/// binds: whether the user mounts something of the host
/// throws UsageError naming the file: not readable, another version, no condition, an unknown stage
spec::Hooks read_hooks(const store::Strings& directories, const spec::RuntimeConfig& config, bool binds);

/// The hooks of a stage by its name: prestart, createRuntime, … throws Error: no such stage
std::vector<spec::Hook>& hooks_of_stage(spec::Hooks& hooks, const std::string& name);

}  // namespace kelp::engine
