#include "cgroup/stats.h"

#include <doctest/doctest.h>

using namespace kelp::cgroup;

TEST_CASE("pressure of the kernel") {
  const auto pressure = parse_pressure(
      "some avg10=1.50 avg60=0.25 avg300=0.00 total=123456\nfull avg10=0.75 avg60=0.10 avg300=0.05 total=99\n");
  CHECK(pressure.some10 == doctest::Approx(1.5));
  CHECK(pressure.some60 == doctest::Approx(0.25));
  CHECK(pressure.some_us == 123456);
  CHECK(pressure.full10 == doctest::Approx(0.75));
  CHECK(pressure.full300 == doctest::Approx(0.05));
  CHECK(pressure.full_us == 99);
  CHECK(parse_pressure("nonsense\nsome avg10").some_us == 0);
}

TEST_CASE("io.stat, device by device") {
  const auto io = parse_io_stat("8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n98:16\n");
  REQUIRE(io.size() == 2);
  CHECK(io[0].major == 8);
  CHECK(io[0].read_bytes == 10);
  CHECK(io[0].write_ops == 2);
  CHECK(io[1].minor == 16);
}
