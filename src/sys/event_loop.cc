#include "sys/event_loop.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

#include "base/error.h"

namespace kelp::sys {

int EventLoop::watch(int fd, short events, Handler handler) {
  watches_.push_back({next_id_, fd, events, std::move(handler)});
  return next_id_++;
}

EventLoop::Watch* EventLoop::find(int id) noexcept {
  const auto it = std::find_if(watches_.begin(), watches_.end(), [id](const Watch& w) { return w.id == id; });
  return it == watches_.end() ? nullptr : &*it;
}

void EventLoop::change(int id, short events) {
  if (Watch* watch = find(id)) watch->events = events;
}

void EventLoop::forget(int id) noexcept {
  std::erase_if(watches_, [id](const Watch& w) { return w.id == id; });
}

int EventLoop::after(std::chrono::milliseconds delay, std::function<void()> handler) {
  timers_.push_back({next_id_, Clock::now() + delay, std::move(handler)});
  return next_id_++;
}

void EventLoop::cancel(int timer) noexcept {
  std::erase_if(timers_, [timer](const Timer& t) { return t.id == timer; });
}

bool EventLoop::fire_timers() {
  bool fired = false;
  for (;;) {
    const auto now = Clock::now();
    const auto it = std::find_if(timers_.begin(), timers_.end(), [now](const Timer& t) { return t.due <= now; });
    if (it == timers_.end()) return fired;
    auto handler = std::move(it->handler);
    timers_.erase(it);
    handler();
    fired = true;
  }
}

bool EventLoop::run_once(std::chrono::milliseconds limit) {
  auto wait = limit.count();
  if (!timers_.empty()) {
    const auto next =
        std::min_element(timers_.begin(), timers_.end(), [](const auto& a, const auto& b) { return a.due < b.due; });
    auto left = std::chrono::ceil<std::chrono::milliseconds>(next->due - Clock::now()).count();
    left = std::max<decltype(left)>(left, 0);
    wait = wait < 0 ? left : std::min(wait, left);
  }
  polled_.clear();
  polled_ids_.clear();
  for (const auto& watch : watches_) {
    if (watch.events == -1) continue;
    polled_.push_back({watch.fd, watch.events, 0});
    polled_ids_.push_back(watch.id);
  }
  const int timeout = wait < 0 ? -1 : static_cast<int>(std::min<long long>(wait, INT_MAX));
  const int ready = ::poll(polled_.data(), static_cast<nfds_t>(polled_.size()), timeout);
  if (ready < 0 && errno != EINTR) throw_errno("wait for events");

  bool handled = false;
  if (ready > 0) {
    // A handler may change the tables (and run this loop again): walk copies, look each watch up again.
    const std::vector<pollfd> polled = polled_;
    const std::vector<int> ids = polled_ids_;
    for (size_t i = 0; i < polled.size(); ++i) {
      if (polled[i].revents == 0) continue;
      const Watch* watch = find(ids[i]);
      if (watch == nullptr || watch->events == -1) continue;
      const Handler handler = watch->handler;
      handler(polled[i].revents);
      handled = true;
    }
  }
  return fire_timers() || handled;
}

void EventLoop::run() {
  while (!stopped_) run_once(std::chrono::milliseconds(-1));
}

}  // namespace kelp::sys
