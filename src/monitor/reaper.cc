#include "monitor/reaper.h"

#include <sys/wait.h>

#include <algorithm>
#include <cerrno>

#include "sys/clone.h"

namespace kelp::monitor {
namespace {
constexpr size_t kStrangers = 32;
}

Reaper::Reaper(sys::EventLoop& loop) : loop_(loop), mask_({SIGCHLD}), signals_({SIGCHLD}) {
  watch_ = loop_.watch(signals_.fd(), POLLIN, [this](short) { collect(); });
}
Reaper::~Reaper() { loop_.forget(watch_); }

void Reaper::expect(pid_t pid, Handler handler) {
  const auto known =
      std::find_if(strangers_.begin(), strangers_.end(), [pid](const auto& s) { return s.first == pid; });
  if (known != strangers_.end()) {
    const int code = known->second;
    strangers_.erase(known);
    handler(code);
    return;
  }
  expected_.emplace_back(pid, std::move(handler));
}

void Reaper::forget(pid_t pid) noexcept {
  std::erase_if(expected_, [pid](const auto& entry) { return entry.first == pid; });
}

void Reaper::collect() {
  while (signals_.next()) {
  }
  for (;;) {
    int status = 0;
    const pid_t pid = ::waitpid(-1, &status, WNOHANG | __WALL);
    if (pid < 0 && errno == EINTR) continue;
    if (pid <= 0) return;
    const int code = sys::wait_status_code(status);
    const auto it = std::find_if(expected_.begin(), expected_.end(), [pid](const auto& e) { return e.first == pid; });
    if (it == expected_.end()) {
      if (strangers_.size() == kStrangers) strangers_.erase(strangers_.begin());
      strangers_.emplace_back(pid, code);
      continue;
    }
    const Handler handler = std::move(it->second);
    expected_.erase(it);
    handler(code);
  }
}

}  // namespace kelp::monitor
