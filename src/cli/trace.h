#pragma once

#include <string>

#include "engine/trace.h"

namespace kelp::cli {

/// What --trace prints: a table, or with `json` one line of JSON.
std::string render_trace(const engine::TraceReport& report, bool json);

}  // namespace kelp::cli
