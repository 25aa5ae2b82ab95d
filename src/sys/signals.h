#pragma once

#include <signal.h>

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/owned.h"

namespace kelp::sys {

/// Blocks signals for a scope and restores the mask at its end.
class SignalMask {
 public:
  explicit SignalMask(const std::vector<int>& signals);
  SignalMask(const SignalMask&) = delete;
  SignalMask& operator=(const SignalMask&) = delete;
  ~SignalMask();

 private:
  sigset_t before_;
};

/// Signals read as data. They must be blocked (SignalMask), and none that arrived since then is lost.
class SignalFd {
 public:
  explicit SignalFd(const std::vector<int>& signals);
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  /// Next pending signal, nullopt when there is none; never blocks.
  std::optional<int> next() const;

 private:
  Fd fd_;
};

/// "SIGTERM", "TERM", "term", "15", "SIGRTMIN+3", "RTMAX-1"; nullopt when it names no signal.
std::optional<int> find_signal(std::string_view name) noexcept;
/// As find_signal(); throws UsageError naming the text.
int signal_from_name(std::string_view name);
/// "SIGTERM"; "SIGRTMIN+3"; the number where it has no name.
std::string signal_name(int signal);

}  // namespace kelp::sys
