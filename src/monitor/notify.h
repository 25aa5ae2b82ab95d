#pragma once

#include <string>
#include <string_view>

#include "base/owned.h"
#include "sys/event_loop.h"

namespace kelp::monitor {

/// systemd's readiness protocol (sd_notify(3)): a service of type notify waits until somebody says READY=1 on the
/// socket that NOTIFY_SOCKET names. Its main process is this monitor, which lives as long as the container.
class Notify {
 public:
  explicit Notify(sys::EventLoop& loop) : loop_(loop) {}

  /// target: NOTIFY_SOCKET; mode: conmon, container, healthy. For container a socket is made at run_dir/notify, which
  /// the container sees as /run/notify; what comes there is passed on. throws SysError
  void open(const std::string& target, const std::string& mode, const std::string& run_dir);
  void started(const std::string& mode);
  void healthy(const std::string& mode);

 private:
  void send(std::string_view text) const noexcept;
  void pass_on();

  sys::EventLoop& loop_;
  Fd to_, from_;
};

}  // namespace kelp::monitor
