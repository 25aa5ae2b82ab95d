#include "base/duration_size.h"

#include <cmath>
#include <cstdlib>
#include <ctime>

#include <fmt/core.h>

#include "base/error.h"
#include "base/text.h"

namespace kelp {
namespace {

/// Reads digits with an optional fraction off the front; false when there is no digit.
bool take_decimal(std::string_view& text, double& value) {
  size_t length = 0;
  bool digit = false;
  bool dot = false;
  for (; length < text.size(); ++length) {
    const char c = text[length];
    if (c >= '0' && c <= '9')
      digit = true;
    else if (c == '.' && !dot)
      dot = true;
    else
      break;
  }
  if (!digit) return false;
  value = std::strtod(std::string(text.substr(0, length)).c_str(), nullptr);
  text.remove_prefix(length);
  return true;
}

std::string scaled(std::uint64_t bytes, const char* separator) {
  constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1000.0 && unit < 6) {
    value /= 1000.0;
    ++unit;
  }
  return fmt::format("{:.3g}{}{}", value, separator, kUnits[unit]);
}

}  // namespace

std::int64_t parse_size(std::string_view text, std::string_view what) {
  const std::string_view whole = text;
  double value = 0;
  const auto bad = [&]() -> std::int64_t {
    throw_usage("{}: {} is not a size (examples: 512m, 2g, 1048576)", what, quoted(whole));
  };
  if (!take_decimal(text, value)) return bad();
  std::string unit = to_lower(trim(text));
  if (unit.ends_with("ib")) unit.resize(unit.size() - 2);
  if (unit.size() == 2 && unit.back() == 'b') unit.pop_back();
  int shift = 0;
  if (unit.empty() || unit == "b")
    shift = 0;
  else if (unit == "k")
    shift = 10;
  else if (unit == "m")
    shift = 20;
  else if (unit == "g")
    shift = 30;
  else if (unit == "t")
    shift = 40;
  else if (unit == "p")
    shift = 50;
  else
    return bad();
  const double bytes = std::ldexp(value, shift);
  if (bytes >= 9.2e18) return bad();
  return static_cast<std::int64_t>(bytes);
}

std::chrono::nanoseconds parse_duration(std::string_view text, std::string_view what,
                                        std::chrono::nanoseconds bare_unit) {
  const std::string_view whole = text;
  const auto bad = [&]() -> std::chrono::nanoseconds {
    throw_usage("{}: {} is not a duration (examples: 1h30m, 10s, 500ms)", what, quoted(whole));
  };
  bool negative = false;
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  if (text.empty()) return bad();
  double total = 0;
  while (!text.empty()) {
    double value = 0;
    if (!take_decimal(text, value)) return bad();
    double unit = 0;
    size_t length = 0;
    if (text.starts_with("ns")) {
      unit = 1;
      length = 2;
    } else if (text.starts_with("us")) {
      unit = 1e3;
      length = 2;
    } else if (text.starts_with("µs")) {
      unit = 1e3;
      length = 3;
    } else if (text.starts_with("ms")) {
      unit = 1e6;
      length = 2;
    } else if (text.starts_with("s")) {
      unit = 1e9;
      length = 1;
    } else if (text.starts_with("m")) {
      unit = 60e9;
      length = 1;
    } else if (text.starts_with("h")) {
      unit = 3600e9;
      length = 1;
    } else if (text.empty() && (value == 0 || bare_unit.count() != 0)) {
      unit = static_cast<double>(bare_unit.count());
    } else {
      return bad();
    }
    text.remove_prefix(length);
    total += value * unit;
    if (total > 9.2e18) return bad();
  }
  const auto nanos = static_cast<std::int64_t>(total);
  return std::chrono::nanoseconds(negative ? -nanos : nanos);
}

std::string human_size(std::uint64_t bytes) { return scaled(bytes, " "); }
std::string human_size_short(std::uint64_t bytes) { return scaled(bytes, ""); }

std::string human_duration(std::chrono::seconds age) {
  const auto s = age.count();
  if (s < 1) return "Less than a second";
  if (s == 1) return "1 second";
  if (s < 60) return fmt::format("{} seconds", s);
  const auto minutes = s / 60;
  if (minutes == 1) return "About a minute";
  if (minutes < 60) return fmt::format("{} minutes", minutes);
  const auto hours = (s + 1800) / 3600;
  if (hours == 1) return "About an hour";
  if (hours < 48) return fmt::format("{} hours", hours);
  if (hours < 24 * 7 * 2) return fmt::format("{} days", hours / 24);
  if (hours < 24 * 30 * 2) return fmt::format("{} weeks", hours / 24 / 7);
  if (hours < 24 * 365 * 2) return fmt::format("{} months", hours / 24 / 30);
  return fmt::format("{} years", hours / 24 / 365);
}

std::string format_rfc3339(std::chrono::system_clock::time_point time) {
  const auto nanos = std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
  std::int64_t seconds = nanos / 1'000'000'000;
  std::int64_t fraction = nanos % 1'000'000'000;
  if (fraction < 0) {
    fraction += 1'000'000'000;
    --seconds;
  }
  // Not gmtime: it reads the time zone file first, in every program that writes one time.
  const std::chrono::sys_seconds clock{std::chrono::seconds(seconds)};
  const auto days = std::chrono::floor<std::chrono::days>(clock);
  const std::chrono::year_month_day date(days);
  const std::chrono::hh_mm_ss clock_time(clock - days);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()), clock_time.hours().count(),
                     clock_time.minutes().count(), clock_time.seconds().count(), fraction);
}

std::chrono::system_clock::time_point parse_rfc3339(std::string_view text) {
  const std::string_view whole = text;
  const auto bad = [&]() { throw_error("{} is not a time (RFC 3339)", quoted(whole)); };
  const auto number = [&](size_t digits, std::int64_t min, std::int64_t max) -> int {
    const auto value = text.size() < digits ? std::nullopt : to_int(text.substr(0, digits), min, max);
    if (!value) bad();
    text.remove_prefix(digits);
    return static_cast<int>(*value);
  };
  const auto expect = [&](std::string_view any_of) -> char {
    if (text.empty() || any_of.find(text[0]) == std::string_view::npos) bad();
    const char c = text[0];
    text.remove_prefix(1);
    return c;
  };
  tm parts{};
  parts.tm_year = number(4, 0, 9999) - 1900;
  expect("-");
  parts.tm_mon = number(2, 1, 12) - 1;
  expect("-");
  parts.tm_mday = number(2, 1, 31);
  expect("Tt ");
  parts.tm_hour = number(2, 0, 23);
  expect(":");
  parts.tm_min = number(2, 0, 59);
  expect(":");
  parts.tm_sec = number(2, 0, 60);
  std::int64_t nanos = 0;
  if (!text.empty() && text[0] == '.') {
    text.remove_prefix(1);
    std::int64_t unit = 100'000'000;
    if (text.empty() || text[0] < '0' || text[0] > '9') bad();
    for (; !text.empty() && text[0] >= '0' && text[0] <= '9'; text.remove_prefix(1), unit /= 10)
      nanos += (text[0] - '0') * unit;
  }
  std::int64_t offset = 0;
  const char zone = expect("Zz+-");
  if (zone == '+' || zone == '-') {
    offset = number(2, 0, 23) * 3600;
    expect(":");
    offset += number(2, 0, 59) * 60;
    if (zone == '-') offset = -offset;
  }
  if (!text.empty()) bad();
  const std::int64_t seconds = static_cast<std::int64_t>(::timegm(&parts)) - offset;
  return std::chrono::system_clock::time_point(std::chrono::seconds(seconds) + std::chrono::nanoseconds(nanos));
}

}  // namespace kelp
