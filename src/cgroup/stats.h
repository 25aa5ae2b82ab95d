#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace kelp::cgroup {

/// What a group has used; nullopt = its controller is not there.
struct Stats {
  struct Cpu {
    std::uint64_t usage_us = 0, user_us = 0, system_us = 0;
    std::uint64_t periods = 0, throttled_periods = 0, throttled_us = 0;
  };
  struct Memory {
    std::uint64_t usage = 0, peak = 0, swap = 0;          ///< bytes
    std::optional<std::uint64_t> limit, swap_limit;       ///< nullopt = max
    std::uint64_t anon = 0, file = 0, inactive_file = 0;  ///< of memory.stat
    std::uint64_t oom = 0, oom_kill = 0, max_events = 0;  ///< of memory.events
  };
  struct Pids {
    std::uint64_t current = 0;
    std::optional<std::uint64_t> limit;
  };
  struct Io {
    unsigned major = 0, minor = 0;
    std::uint64_t read_bytes = 0, write_bytes = 0, read_ops = 0, write_ops = 0;
  };
  /// Pressure stall information: the share of time in which tasks waited for a resource. source: kernel, psi.rst
  struct Pressure {
    double some10 = 0, some60 = 0, some300 = 0;  ///< percent of the last 10, 60 and 300 s in which some task waited
    double full10 = 0, full60 = 0, full300 = 0;  ///< …in which all did
    std::uint64_t some_us = 0, full_us = 0;      ///< in all, microseconds
  };
  std::optional<Pressure> cpu_pressure, memory_pressure, io_pressure;  ///< nullopt = a kernel without PSI
  std::optional<Cpu> cpu;
  std::optional<Memory> memory;
  std::optional<Pids> pids;
  std::vector<Io> io;
};

Stats read_stats(const std::string& group);

/// Parsers of the kernel's texts, for the tests.
std::uint64_t stat_value(std::string_view text, std::string_view key);  ///< "key value" lines; 0 when absent
std::vector<Stats::Io> parse_io_stat(std::string_view text);
Stats::Pressure parse_pressure(std::string_view text);

/// oom_kill of memory.events (how many processes the OOM killer took here), 0 when unknown.
std::uint64_t oom_kills(const std::string& group);

}  // namespace kelp::cgroup
