#pragma once

#include <cstdint>

namespace kelp::sys {

/// Our own effective user id as the parent of our user namespace sees it: 0 there is root's, whatever it is here.
std::uint32_t own_uid_outside();

}  // namespace kelp::sys
