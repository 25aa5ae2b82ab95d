#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cgroup/stats.h"
#include "store/container_record.h"

namespace kelp::engine {

struct Context;

/// What a container uses at one moment. Where its cgroup lacks a controller, or where there is none, the numbers are
/// those of its living processes: `from_processes`.
struct UsageSample {
  std::string id, name;
  bool running = false;  ///< also paused; false: all below is zero
  std::chrono::system_clock::time_point taken, started;
  std::uint64_t cpu_ns = 0, cpu_system_ns = 0;  ///< since the start
  std::uint64_t memory = 0, memory_limit = 0;   ///< bytes; without a limit that of the host
  std::uint64_t received = 0, sent = 0;         ///< bytes through the network interfaces of its own
  std::uint64_t read = 0, written = 0;          ///< bytes from and to block devices
  std::uint64_t pids = 0;                       ///< tasks, threads included
  std::optional<cgroup::Stats::Pressure> cpu_pressure, memory_pressure, io_pressure;
  bool from_processes = false;
};

/// One sample of each, in the given order. A container that has gone meanwhile is one that does not run.
std::vector<UsageSample> sample_usage(Context& context, const std::vector<store::ContainerRecord>& records);

/// CPU time per wall time in percent (100 = one CPU) since `before`; nullptr: since the container's start.
double cpu_percent(const UsageSample& now, const UsageSample* before);

/// Bytes received and sent by the interfaces of /proc/PID/net/dev but the loopback, for the tests.
std::pair<std::uint64_t, std::uint64_t> parse_net_dev(std::string_view text);

}  // namespace kelp::engine
