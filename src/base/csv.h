#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kelp {

/// Splits a comma-separated value as Go's encoding/csv does: "a,\"b,c\"" gives a and b,c; "" gives nothing.
/// throws    UsageError naming `what`: a quote that is not closed
std::vector<std::string> split_csv(std::string_view text, std::string_view what);

}  // namespace kelp
