#pragma once

#include <string>

#include "cgroup/cgroup.h"

namespace kelp::cgroup {

/// Place for scopes of the caller's systemd, in `slice` ("" = user.slice, for root machine.slice). manager none with
/// the reason when there is no bus, no pure v2 hierarchy, or nothing is delegated.
Place systemd_place(const std::string& slice);

/// "a-b.slice" → "a.slice/a-b.slice", as systemd nests slices. source: systemd.slice(5)
std::string slice_path(const std::string& slice);
/// Last part of a place's parent: the slice to ask for.
std::string slice_of(const Place& place);
/// "kelp-<id>.scope"
std::string scope_name(const std::string& id);

}  // namespace kelp::cgroup
