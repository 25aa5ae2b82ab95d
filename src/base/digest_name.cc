#include "base/digest_name.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace kelp {
namespace {
bool all_hex(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}
}  // namespace

std::optional<DigestName> DigestName::parse(std::string_view text) {
  const bool sha256 = text.starts_with("sha256:") && text.size() == 7 + 64;
  const bool sha512 = text.starts_with("sha512:") && text.size() == 7 + 128;
  if ((!sha256 && !sha512) || !all_hex(text.substr(7))) return std::nullopt;
  return DigestName(std::string(text));
}

DigestName DigestName::require(std::string_view text) {
  if (auto digest = parse(text)) return *std::move(digest);
  throw_error("{} is not a digest (sha256: and 64 lower-case hex digits)", quoted(text));
}

bool is_full_id(std::string_view text) noexcept { return text.size() == 64 && all_hex(text); }
bool is_id_prefix(std::string_view text) noexcept { return !text.empty() && text.size() <= 64 && all_hex(text); }

}  // namespace kelp
