#pragma once

#include <map>
#include <string>
#include <vector>

namespace kelp::engine {

/// Which installed packages the programs came from, by asking rpm, else dpkg: "slirp4netns_1.2.0-1_amd64".
///
/// paths    absolute paths; empty ones are skipped
/// returns  by path; "Unknown", as podman has it, where no package manager knows the file
std::map<std::string, std::string> package_owners(const std::vector<std::string>& paths);

}  // namespace kelp::engine
