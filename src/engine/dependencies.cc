#include "engine/dependencies.h"

#include <algorithm>

#include "base/text.h"

namespace kelp::engine {

store::Strings dependencies(const store::ContainerConfig& config) {
  store::Strings modes = config.networks, found;
  for (const auto* mode : {&config.pid, &config.ipc, &config.uts, &config.userns, &config.cgroupns})
    modes.push_back(*mode);
  for (const std::string& mode : modes)
    if (starts_with(mode, "container:")) found.push_back(mode.substr(10));
  found.insert(found.end(), config.depends_on.begin(), config.depends_on.end());
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

}  // namespace kelp::engine
