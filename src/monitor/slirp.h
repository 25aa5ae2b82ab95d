#pragma once

#include <sys/types.h>

#include <functional>
#include <string>

#include "base/owned.h"
#include "monitor/plan.h"
#include "monitor/reaper.h"
#include "sys/event_loop.h"

namespace kelp::monitor {

/// slirp4netns for one network namespace. It runs in S (as the monitor does), with its sandbox on; it ends when the
/// exit descriptor closes, of which the monitor alone holds the other end: no death of the monitor leaves it behind.
class Slirp {
 public:
  /// wait: runs the loop until the condition holds; false on time-out or when the start was given up
  using Wait = std::function<bool(const std::function<bool()>& condition, int milliseconds)>;

  Slirp(sys::EventLoop& loop, Reaper& reaper, const Plan& plan, int run_dir)
      : loop_(loop), reaper_(reaper), plan_(plan), run_dir_(run_dir) {}
  ~Slirp() { stop(); }
  Slirp(const Slirp&) = delete;
  Slirp& operator=(const Slirp&) = delete;

  /// Starts it for the network namespace of `init`, and does not wait.
  void launch(pid_t init);
  /// Launches it where that has not been done, waits until it is ready and publishes the ports.
  /// throws Error with slirp4netns' own words, or naming the port that could not be had
  void start(pid_t init, const Wait& wait);
  /// Ends it without waiting: its teardown takes 20–90 ms.
  void stop() noexcept;
  /// Called when it dies by itself.
  void on_death(std::function<void()> handler) { died_ = std::move(handler); }

 private:
  void forward(const std::string& words, const std::string& request) const;

  sys::EventLoop& loop_;
  Reaper& reaper_;
  const Plan& plan_;
  int run_dir_;
  Fd exit_end_, errors_, ready_;
  pid_t pid_ = 0;
  int error_watch_ = 0;
  std::string error_text_;
  std::function<void()> died_;
};

}  // namespace kelp::monitor
