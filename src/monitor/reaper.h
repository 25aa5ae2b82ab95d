#pragma once

#include <sys/types.h>

#include <functional>
#include <utility>
#include <vector>

#include "sys/event_loop.h"
#include "sys/signals.h"

namespace kelp::monitor {

/// Ends of children, from one SIGCHLD descriptor. As subreaper the monitor also gets orphans that it never started;
/// they are reaped and forgotten, but their codes are kept for a while: the runtime's child may end before the monitor
/// has heard its pid.
class Reaper {
 public:
  /// code: exit status, or 128 + signal
  using Handler = std::function<void(int code)>;

  explicit Reaper(sys::EventLoop& loop);
  ~Reaper();
  Reaper(const Reaper&) = delete;
  Reaper& operator=(const Reaper&) = delete;

  /// Calls the handler once, at once when the process has already been reaped.
  void expect(pid_t pid, Handler handler);
  void forget(pid_t pid) noexcept;

 private:
  void collect();

  sys::EventLoop& loop_;
  sys::SignalMask mask_;
  sys::SignalFd signals_;
  int watch_;
  std::vector<std::pair<pid_t, Handler>> expected_;
  std::vector<std::pair<pid_t, int>> strangers_;  ///< the last few, newest last
};

}  // namespace kelp::monitor
