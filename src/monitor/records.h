#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>

#include "monitor/plan.h"

/// What the monitor writes for the others to read: state.json while it lives, exit.json and the pid file. Keys as in
/// store/container_record.h; each file appears whole, by rename.
namespace kelp::monitor {

struct StateRecord {
  pid_t pid = 0;  ///< 0: no container process now
  std::chrono::system_clock::time_point started;
  unsigned restarts = 0;
  bool initialized = false;  ///< it waits at the gate
};
void write_state(const Plan& plan, const StateRecord& state);
void remove_state(const Plan& plan) noexcept;

struct ExitRecord {
  int code = 0;
  std::chrono::system_clock::time_point started, finished;
  bool oom_killed = false, stopped_by_user = false;
  unsigned restarts = 0;
};
void write_exit(const Plan& plan, const ExitRecord& exit);

/// How often the kernel's OOM killer has struck in the container's group; 0 without one.
std::uint64_t oom_kills(const Plan& plan);

}  // namespace kelp::monitor
