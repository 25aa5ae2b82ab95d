#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kelp::sys {

/// One step() that somebody has run.
///
/// started  microseconds of CLOCK_MONOTONIC
/// took     microseconds; -1: it has not ended (so far)
struct TraceEntry {
  std::int64_t started = 0, took = -1;
  bool failed = false;
  std::string program, name;
};

/// Where steps are noted while somebody traces. It is memory that processes share: a note costs no system call, so it
/// can be made between the loading of a system call filter and exec, and it outlives whoever made it.
class TracePage {
 public:
  /// Shared with the processes that are cloned from here on.
  static TracePage anonymous();
  /// Shared through a file; throws SysError. `make`: it must not be there yet.
  static TracePage file(const std::string& path, bool make);
  TracePage(const TracePage&) = delete;
  TracePage& operator=(const TracePage&) = delete;
  TracePage(TracePage&& other) noexcept;
  TracePage& operator=(TracePage&&) = delete;
  ~TracePage();

  /// Every step() of this process, and of those cloned from it, is noted here, under the name of a program.
  void listen(const char* program);
  /// In the order in which they were noted: of two nested ones the inner comes first.
  [[nodiscard]] std::vector<TraceEntry> entries() const;

 private:
  explicit TracePage(int fd);
  void* memory_ = nullptr;
};

/// A step that begins in one process and ends in another. Both do nothing while nobody listens.
void trace_begin(const char* name) noexcept;
void trace_end(const char* name) noexcept;

}  // namespace kelp::sys
