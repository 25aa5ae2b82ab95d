#pragma once

#include <optional>
#include <string>
#include <string_view>

/// source: RFC 4648, 4
namespace kelp {

std::string base64_encode(std::string_view bytes);
/// nullopt unless the whole text is base64 (standard alphabet; padding may be missing).
std::optional<std::string> base64_decode(std::string_view text);

}  // namespace kelp
