#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/make_spec.h"
#include "spec/runtime_config.h"
#include "store/container_record.h"

namespace kelp::engine {

/// What the drivers of the devices of a container want of it (Container Device Interface).
struct CdiEdits {
  std::vector<SpecInput::BoundDevice> devices;
  std::vector<spec::Mount> mounts;
  store::Strings env;                 ///< NAME=VALUE, over those of the image and the user
  std::vector<std::uint32_t> groups;  ///< supplementary, of the container's process
  spec::Hooks hooks;
};

/// Whether a --device is the name of a CDI device: VENDOR/CLASS=NAME.
bool is_cdi_name(std::string_view text);

/// The edits for those of `names` that are CDI names, from the *.json files of `directories` (--cdi-spec-dir; empty:
/// /etc/cdi and /var/run/cdi). What a later directory says of a device replaces what an earlier one says. Nothing is
/// read when there is no such name.
///
/// throws UsageError: no file describes the device (the hint names files that could not be read), two files of one
///        directory do, an edit that needs root or that is not known, no such node on the host
CdiEdits find_cdi_edits(const store::Strings& directories, const store::Strings& names);

/// Environment, groups and hooks into the finished config; devices and mounts belong into the input of make_spec().
void apply_cdi_edits(const CdiEdits& edits, spec::RuntimeConfig& config);

}  // namespace kelp::engine
