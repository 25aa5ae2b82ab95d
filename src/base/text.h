#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kelp {

/// Splits at each `separator`; "a,,b" gives {"a","","b"}, "" gives {}. max_parts 0 = no limit, else the
/// last part keeps the rest.
std::vector<std::string> split(std::string_view text, char separator, size_t max_parts = 0);
std::string join(const std::vector<std::string>& parts, std::string_view separator);
std::string_view trim(std::string_view text) noexcept;
std::string to_lower(std::string_view text);
bool starts_with(std::string_view text, std::string_view prefix) noexcept;
bool ends_with(std::string_view text, std::string_view suffix) noexcept;

/// The whole text as an integer within [min, max]; nullopt otherwise (no white space, no sign but '-').
std::optional<std::int64_t> to_int(std::string_view text, std::int64_t min = INT64_MIN,
                                   std::int64_t max = INT64_MAX) noexcept;
/// Octal digits only, as in modes ("0755"); nullopt above max.
std::optional<unsigned> to_octal(std::string_view text, unsigned max = 07777) noexcept;
/// true/false in the spellings that Go's flag parser takes: 1 t T true TRUE True …
std::optional<bool> to_bool(std::string_view text) noexcept;

/// For messages: "name" in double quotes, control characters and bad UTF-8 escaped, cut after 200 bytes.
std::string quoted(std::string_view text);
/// Control characters (so escape sequences too) and bad UTF-8 escaped; otherwise as it is.
std::string printable(std::string_view text);
/// Length of the valid UTF-8 sequence at the start, 0 when there is none.
size_t utf8_sequence_length(std::string_view text) noexcept;

/// Edit distance-based "did you mean": the candidate nearest to `word`, empty when none is near.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace kelp
