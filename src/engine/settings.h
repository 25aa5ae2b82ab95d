#pragma once

#include <string>

#include "store/container_record.h"

namespace kelp::engine {

/// The user's own settings: $XDG_CONFIG_HOME/kelp/kelp.toml. A host without the file has the defaults.
///
///     [network]
///     default = "host"     # what `run` and `create` take where --network is not given
///     [store]
///     keep-blobs = false   # layers are kept unpacked only (image/lone_trees.h)
struct Settings {
  store::Strings networks;  ///< empty = slirp4netns
  bool keep_blobs = true;
};

/// modules: further files, which must be there; what a later one says holds.
/// throws UsageError naming file and line: not TOML, an unknown key, a value of another kind
Settings load_settings(const store::Strings& modules = {});

}  // namespace kelp::engine
