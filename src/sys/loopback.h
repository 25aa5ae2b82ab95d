#pragma once

namespace kelp::sys {

/// Sets `lo` of the caller's network namespace up. throws SysError
void bring_loopback_up();

}  // namespace kelp::sys
