#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "sys/signals.h"

namespace kelp::engine {

/// The foreground side of a connection to a monitor: our stdin, stdout, stderr and signals joined with the container's.
struct FollowOptions {
  bool in = false, out = false, err = false;
  bool tty = false;  ///< the container has a terminal: ours, if stdin is one, becomes raw while it runs
  bool sig_proxy = true;
  bool foreground = false;  ///< we have started it
  std::string detach_keys;
  std::string* last_words = nullptr;  ///< the end of the output is kept there
};

/// detached  the user typed the detach keys
/// lost      the monitor ended without a word: it was killed, and the container with it
/// signal    a signal that is ours and not the container's ended it (with a terminal, or without sig_proxy)
struct FollowResult {
  bool detached = false, lost = false;
  int code = 0, signal = 0;
};

/// Signals that follow() passes on or acts upon; to be blocked before the container is started, so that none is lost.
const std::vector<int>& followed_signals();

/// First frames of a connection that has said hello: what we want of the streams. Before the container is started.
void ask_to_attach(int link, const FollowOptions& options);

/// Waits until the container has been started, or waits at its gate (`init`). Warnings of the runtime are logged.
/// Returns its pid. throws  Error of a failed start; Error when the monitor has died
int wait_until_started(int link);

/// Copies until the container ends or the user detaches. `signals` were blocked all the time. A signal that is not
/// passed on ends this process as it would have without us, after the terminal is as it was; the container goes on.
FollowResult follow(int link, int pid, const FollowOptions& options, const sys::SignalFd& signals);

/// "ctrl-p,ctrl-q", "a,ctrl-@" as the bytes a terminal sends; throws UsageError.
std::string parse_detach_keys(std::string_view text);

/// Finds the detach keys in what is typed. feed() gives what may be sent on; part of the sequence is held back.
class DetachKeys {
 public:
  explicit DetachKeys(std::string keys) : keys_(std::move(keys)) {}
  /// Appends to `pass`; true when the sequence is complete.
  bool feed(std::string_view typed, std::string& pass);

 private:
  std::string keys_;
  size_t matched_ = 0;
};

}  // namespace kelp::engine
