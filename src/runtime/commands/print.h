#pragma once

#include <string_view>

namespace kelp::runtime {

/// Writes to stdout, all of it; throws SysError (a closed pipe, a full disk).
void print(std::string_view text);

}  // namespace kelp::runtime
