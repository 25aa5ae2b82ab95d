#include "base/duration_size.h"

#include <doctest/doctest.h>

#include "base/error.h"

using namespace kelp;
using namespace std::chrono_literals;

TEST_CASE("sizes are powers of 1024 whatever the spelling of the unit") {
  CHECK(parse_size("512", "--memory") == 512);
  CHECK(parse_size("64k", "--memory") == 65536);
  CHECK(parse_size("64KiB", "--memory") == 65536);
  CHECK(parse_size("1.5g", "--memory") == 1610612736);
  CHECK(parse_size("10MB", "--memory") == 10485760);
  for (const char* bad : {"", "m", "-1", "1x", "9999999999g", "1 2"}) CHECK_THROWS_AS(parse_size(bad, "x"), UsageError);
}

TEST_CASE("durations as Go writes them") {
  CHECK(parse_duration("1h2m3s", "x") == 1h + 2min + 3s);
  CHECK(parse_duration("1.5s", "x") == 1500ms);
  CHECK(parse_duration("300ms", "x") == 300ms);
  CHECK(parse_duration("10", "x", 1s) == 10s);
  CHECK(parse_duration("0", "x") == 0s);
  for (const char* bad : {"", "10", "s", "1q", "-"}) CHECK_THROWS_AS(parse_duration(bad, "x"), UsageError);
}

TEST_CASE("times survive the round trip and any offset") {
  const auto time = parse_rfc3339("2024-02-29T12:34:56.789012345Z");
  CHECK(format_rfc3339(time) == "2024-02-29T12:34:56.789012345Z");
  CHECK(parse_rfc3339("2024-02-29T14:34:56.789012345+02:00") == time);
  CHECK(format_rfc3339(parse_rfc3339("1960-01-01T00:00:00Z")) == "1960-01-01T00:00:00.000000000Z");
  for (const char* bad : {"", "2024-13-01T00:00:00Z", "2024-01-01", "2024-01-01T00:00:00", "2024-01-01T00:00:00Zx"})
    CHECK_THROWS_AS(parse_rfc3339(bad), Error);
}

TEST_CASE("ages and sizes read as docker's and podman's tables") {
  CHECK(human_duration(0s) == "Less than a second");
  CHECK(human_duration(45s) == "45 seconds");
  CHECK(human_duration(90s) == "About a minute");
  CHECK(human_duration(50min) == "50 minutes");
  CHECK(human_duration(3h) == "3 hours");
  CHECK(human_duration(24h * 5) == "5 days");
  CHECK(human_size(4'860'000) == "4.86 MB");
  CHECK(human_size_short(0) == "0B");
}
