#pragma once

#include <string>
#include <string_view>

namespace kelp::image {

/// scheme://host[:port] of an absolute URL, in lower case and with the default port left out; "" when it is none,
/// or when its host has a control character.
std::string url_origin(std::string_view url);
/// `reference` (a Location header) as seen from `base`: absolute, "//host/…", "/path" or relative.
std::string resolve_url(std::string_view base, std::string_view reference);
/// A URL that may have "user:password@" before its host.
struct UrlWithUser {
  std::string url;    ///< to be asked for: without the user, and without "#…"
  std::string user;   ///< "user:password", percent-decoded; "" = none
  std::string shown;  ///< to be told and kept: without what may be secret, the user and the query
};
UrlWithUser split_user(std::string_view url);
/// Percent-encodes everything but unreserved characters, for a query value.
std::string url_encode(std::string_view text);

}  // namespace kelp::image
