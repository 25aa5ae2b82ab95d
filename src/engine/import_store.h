#pragma once

#include <string>
#include <utility>
#include <vector>

#include "engine/images.h"

namespace kelp::engine {

struct Context;

struct ImportReport {
  TakenImages images;
  std::vector<std::string> volumes;   ///< that are here now, with their contents
  std::vector<std::string> kept;      ///< of that name there was one: it is as it was
  std::vector<std::string> failures;  ///< a line for each image and volume that could not be brought over
};

/// `kelp system import`: copies the named images and the named volumes of another engine's store, which is left as it
/// is. Doing it again copies what is new.
///
/// owner   "podman" or "docker"
/// store   its directory, "" = the caller's own
/// throws  Error where there is no such store, or it cannot be read
ImportReport import_store(Context& context, const std::string& owner, const std::string& store,
                          const ProgressFn& progress = {});

}  // namespace kelp::engine
