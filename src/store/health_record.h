#pragma once

#include <string_view>

#include "store/layout.h"

namespace kelp::store {

/// throws Error when a newer kelp has written health.json of a container, the results of its health checks: they cannot
/// be shown, and a start would write others over them. Missing or without a schema is fine.
void refuse_newer_health(const Layout& layout, std::string_view id);

}  // namespace kelp::store
