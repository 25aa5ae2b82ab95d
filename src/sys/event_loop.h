#pragma once

#include <poll.h>

#include <chrono>
#include <functional>
#include <vector>

namespace kelp::sys {

/// A poll(2) loop over a handful of descriptors (pipes, sockets, pidfds, regular files) and timers. Handlers may add
/// and forget watches, their own too.
class EventLoop {
 public:
  using Handler = std::function<void(short revents)>;
  using Clock = std::chrono::steady_clock;

  /// Watches a borrowed descriptor; returns the id of the watch. A hang-up or error calls the handler too, whatever
  /// `events` says; with events 0 nothing but those.
  int watch(int fd, short events, Handler handler);
  /// New events for a watch; -1 suspends it altogether, hang-ups too.
  void change(int id, short events);
  /// Unknown ids are ignored.
  void forget(int id) noexcept;

  /// Calls the handler once after the delay; returns the id of the timer.
  int after(std::chrono::milliseconds delay, std::function<void()> handler);
  void cancel(int timer) noexcept;

  /// Handles events until stop().
  void run();
  /// One poll: waits at most `limit` (negative: for ever); false when nothing happened.
  bool run_once(std::chrono::milliseconds limit);
  void stop() noexcept { stopped_ = true; }
  [[nodiscard]] bool stopped() const noexcept { return stopped_; }

 private:
  struct Watch {
    int id, fd;
    short events;
    Handler handler;
  };
  struct Timer {
    int id;
    Clock::time_point due;
    std::function<void()> handler;
  };
  bool fire_timers();
  Watch* find(int id) noexcept;

  std::vector<Watch> watches_;
  std::vector<Timer> timers_;
  std::vector<pollfd> polled_;
  std::vector<int> polled_ids_;
  int next_id_ = 1;
  bool stopped_ = false;
};

}  // namespace kelp::sys
