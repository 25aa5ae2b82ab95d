#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace kelp {

/// "512", "512b", "64k", "10m", "2g", "1.5gb", "1tb", "64KiB" in bytes (all units are powers of 1024, case
/// does not matter). Throws UsageError naming `what` and the text. -1 is not special here.
std::int64_t parse_size(std::string_view text, std::string_view what);

/// Go's durations: "1h2m3s", "1.5s", "300ms", "10us", "0"; a bare integer is taken as `bare_unit` when that
/// is not zero. Throws UsageError naming `what`.
std::chrono::nanoseconds parse_duration(std::string_view text, std::string_view what,
                                        std::chrono::nanoseconds bare_unit = std::chrono::nanoseconds(0));

/// "4.86 MB" with powers of 1000 and three or four significant digits, as docker's and podman's tables.
std::string human_size(std::uint64_t bytes);
/// "65.5kB" style: powers of 1000, no space.
std::string human_size_short(std::uint64_t bytes);
/// "About a minute", "3 hours", "2 weeks": as docker and podman write ages.
std::string human_duration(std::chrono::seconds age);

/// RFC 3339 with nanoseconds and zone Z; parse takes any offset and 0–9 fraction digits, throws Error.
std::string format_rfc3339(std::chrono::system_clock::time_point time);
std::chrono::system_clock::time_point parse_rfc3339(std::string_view text);

}  // namespace kelp
