#include "image/url.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "base/text.h"

namespace kelp::image {

std::string url_origin(std::string_view url) {
  const size_t scheme_end = url.find("://");
  if (scheme_end == std::string_view::npos) return "";
  const std::string scheme = to_lower(url.substr(0, scheme_end));
  for (const char c : scheme)
    if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.')) return "";
  std::string_view rest = url.substr(scheme_end + 3);
  rest = rest.substr(0, rest.find_first_of("/?#"));
  if (const size_t at = rest.rfind('@'); at != std::string_view::npos) rest = rest.substr(at + 1);
  // No host has a blank or a control character in its name, and none must get into a log or a request.
  for (const char c : rest)
    if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7f) return "";
  std::string host = to_lower(rest);
  if (scheme == "https" && ends_with(host, ":443")) host.resize(host.size() - 4);
  if (scheme == "http" && ends_with(host, ":80")) host.resize(host.size() - 3);
  return scheme + "://" + host;
}

std::string resolve_url(std::string_view base, std::string_view reference) {
  if (reference.find("://") != std::string_view::npos && reference.find("://") < reference.find_first_of("/?#")) {
    return std::string(reference);
  }
  const size_t scheme_end = base.find("://");
  if (starts_with(reference, "//")) return std::string(base.substr(0, scheme_end + 1)) + std::string(reference);
  const size_t path_at = base.find_first_of("/?#", scheme_end + 3);
  const std::string origin(base.substr(0, path_at));
  if (starts_with(reference, "/")) return origin + std::string(reference);
  std::string_view path = path_at == std::string_view::npos ? "/" : base.substr(path_at);
  path = path.substr(0, path.find_first_of("?#"));
  if (starts_with(reference, "?")) return origin + std::string(path) + std::string(reference);
  return origin + std::string(path.substr(0, path.rfind('/') + 1)) + std::string(reference);
}

UrlWithUser split_user(std::string_view url) {
  UrlWithUser result;
  url = url.substr(0, url.find('#'));
  const size_t host = url.find("://") + 3;
  const size_t host_end = std::min(url.find_first_of("/?", host), url.size());
  const size_t at = url.substr(0, host_end).rfind('@');
  std::string_view rest = url.substr(host);
  if (at != std::string_view::npos && at >= host) {
    const std::string_view user = url.substr(host, at - host);
    for (size_t i = 0; i < user.size(); ++i) {
      unsigned byte = 0;
      const char* begin = user.data() + i + 1;
      if (user[i] == '%' && i + 2 < user.size() && std::from_chars(begin, begin + 2, byte, 16).ptr == begin + 2) {
        result.user += static_cast<char>(byte);
        i += 2;
      } else {
        result.user += user[i];
      }
    }
    rest = url.substr(at + 1);
  }
  result.url = std::string(url.substr(0, host)) + std::string(rest);
  result.shown = result.url.substr(0, result.url.find('?'));
  return result;
}

std::string url_encode(std::string_view text) {
  std::string result;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                       c == '.' || c == '_' || c == '~';
    if (plain) {
      result += c;
    } else {
      result += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return result;
}

}  // namespace kelp::image
