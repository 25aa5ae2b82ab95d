#pragma once

#include <string>
#include <string_view>

#include "cgroup/cgroup.h"

namespace kelp::cgroup {

/// probe() with a memory: `entered` is a file that holds, until the next boot, the groups below which a child has been
/// cloned into a group already, and into those no child is cloned again (two clones are a twentieth of a start).
Place probe(std::string_view wanted, const std::string& parent, const std::string& entered);

}  // namespace kelp::cgroup
