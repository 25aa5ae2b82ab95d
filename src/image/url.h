#pragma once

#include <string>
#include <string_view>

namespace kelp::image {

/// scheme://host[:port] of an absolute URL, in lower case and with the default port left out; "" when it is none,
/// or when its host has a control character.
std::string url_origin(std::string_view url);
/// `reference` (a Location header) as seen from `base`: absolute, "//host/…", "/path" or relative.
std::string resolve_url(std::string_view base, std::string_view reference);
/// Percent-encodes everything but unreserved characters, for a query value.
std::string url_encode(std::string_view text);

}  // namespace kelp::image
