#include <doctest/doctest.h>

#include "engine/stats.h"
#include "engine/update.h"

using namespace kelp;
using namespace kelp::engine;

TEST_CASE("network counters leave the loopback out") {
  const auto [received, sent] = parse_net_dev(
      "Inter-|   Receive                                                |  Transmit\n"
      " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls "
      "carrier\n"
      "    lo:    1000      10    0    0    0     0          0         0     1000      10    0    0    0     0       "
      "0\n"
      "  tap0: 1234      10    0    0    0     0          0         0   5678      11    0    0    0     0       0      "
      "    0\n"
      "  eth1:1       1    0    0    0     0          0         0   2      1    0    0    0     0       0          "
      "0\n");
  CHECK(received == 1235);
  CHECK(sent == 5680);
}

TEST_CASE("CPU share since the start, then since the sample before") {
  using std::chrono::seconds;
  UsageSample first, second;
  first.running = second.running = true;
  first.started = second.started = std::chrono::system_clock::time_point(seconds(100));
  first.taken = first.started + seconds(10);
  first.cpu_ns = 5'000'000'000;
  second.taken = first.taken + seconds(2);
  second.cpu_ns = 9'000'000'000;
  CHECK(cpu_percent(first, nullptr) == doctest::Approx(50));
  CHECK(cpu_percent(second, &first) == doctest::Approx(200));
  second.started += seconds(11);  // started again meanwhile
  second.cpu_ns = 500'000'000;
  CHECK(cpu_percent(second, &first) == doctest::Approx(50));
}

TEST_CASE("update: a number of CPUs and a quota exclude each other") {
  store::Resources old, change;
  old.cpus = 1.5;
  old.memory = 100;
  change.cpu_period = 50'000;
  store::Resources merged = merge_limits(old, change);
  CHECK(!merged.cpus);
  CHECK(merged.cpu_quota == 150'000);
  CHECK(merged.cpu_period == 50'000);
  CHECK(merged.memory == 100);
  change = {};
  change.cpus = 2;
  change.memory = 200;
  merged = merge_limits(merged, change);
  CHECK(merged.cpus == 2);
  CHECK(!merged.cpu_quota);
  CHECK(!merged.cpu_period);
  CHECK(merged.memory == 200);
}
