#pragma once

#include "store/layout.h"

namespace kelp::engine {

/// Makes the run directory again where somebody has taken it away under running containers: their monitors, found by
/// the locks that they hold, are asked to publish themselves again. Reads all of /proc: for when something is amiss.
void recover_run_directory(const store::Layout& layout) noexcept;

}  // namespace kelp::engine
