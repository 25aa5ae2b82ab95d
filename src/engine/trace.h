#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sys/trace.h"

namespace kelp::engine {

/// Something that was done on the way to a container: times are microseconds, `at` since the trace began.
///
/// took  -1: it did not end
struct TracePart {
  std::string program, name;
  std::int64_t at = 0, took = 0;
  bool failed = false;
};

/// One of the seven steps of ARCHITECTURE.md.
///
/// at, took  its first part, and the time in which any of its parts was at work
/// parts     in order of time; empty when nothing of it was seen (a foreign runtime tells nothing)
struct TraceStep {
  int number = 0;
  const char* name = "";
  std::int64_t at = 0, took = 0;
  std::vector<TracePart> parts;
};

/// total   until the container was seen to run, or to have failed
/// others  what belongs to none of the seven: looking for the image, waiting
struct TraceReport {
  std::int64_t total = 0;
  std::vector<TraceStep> steps;  ///< always seven
  std::vector<TracePart> others;
};

/// `kelp run --trace`: notes the steps of this program, of the container's session and of kelp-oci.
class StartTrace {
 public:
  StartTrace();
  /// Makes the file through which kelp-oci takes part; returns its path.
  std::string share(const std::string& directory);
  /// The start is over, well or not; removes the file.
  TraceReport finish() noexcept;

 private:
  std::int64_t began_;
  sys::TracePage ours_;
  std::optional<sys::TracePage> theirs_;
  std::string path_;
};

/// Which of the seven a part belongs to, 0 = none.
int trace_step_of(const std::string& program, const std::string& part) noexcept;

/// entries: of all programs, in any order; began, ended: CLOCK_MONOTONIC in microseconds
TraceReport make_trace_report(const std::vector<sys::TraceEntry>& entries, std::int64_t began, std::int64_t ended);

}  // namespace kelp::engine
