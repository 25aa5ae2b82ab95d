#pragma once

#include "cli/option_set.h"
#include "engine/registries.h"

namespace kelp::cli {

/// --authfile --cert-dir --tls-verify, which every command has that talks to a registry; `creds` and `retry` where
/// podman's command has them.
struct AccessOptions {
  bool creds = true, retry = false;
};
void add_access_options(OptionSet& options, engine::RegistryAccess& access, const AccessOptions& which = {});

}  // namespace kelp::cli
