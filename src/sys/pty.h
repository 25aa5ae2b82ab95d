#pragma once

#include <termios.h>

#include <optional>
#include <string>

#include "base/owned.h"

namespace kelp::sys {

struct WindowSize {
  unsigned short rows = 0, columns = 0;
};

/// Size of the terminal behind fd, nullopt when it is none.
std::optional<WindowSize> window_size(int fd) noexcept;
/// Best effort: a size that cannot be set is not worth an error.
void set_window_size(int fd, WindowSize size) noexcept;

/// A pseudo terminal of this mount namespace's devpts; both ends CLOEXEC and O_NOCTTY.
struct Pty {
  Fd master, slave;
};
Pty open_pty();

/// The socket to which an OCI runtime sends the terminal of a new process (--console-socket). It has a name in an open
/// directory while the object lives; runtimes reach it as /proc/self/fd/N/name, however long the directory's path is.
class ConsoleSocket {
 public:
  ConsoleSocket(int dirfd, std::string name);
  ConsoleSocket(const ConsoleSocket&) = delete;
  ConsoleSocket& operator=(const ConsoleSocket&) = delete;
  ~ConsoleSocket();
  /// Readable once the runtime has connected.
  [[nodiscard]] int fd() const noexcept { return listener_.get(); }
  /// The master end that the runtime has sent or is about to send. throws Error when none comes in time.
  Fd receive(int milliseconds);

 private:
  int dirfd_;  ///< borrowed
  std::string name_;
  Fd listener_;
};

/// Puts a terminal into raw mode for a scope; restores it at the end, by restore(), and on the death by signal of a
/// caller that handles its signals. Does nothing when fd is not a terminal.
class RawMode {
 public:
  explicit RawMode(int fd);
  RawMode(const RawMode&) = delete;
  RawMode& operator=(const RawMode&) = delete;
  ~RawMode() { restore(); }
  void restore() noexcept;
  /// Raw again after restore(), e.g. when the process continues after a stop.
  void enter();
  /// Job control: the terminal is given back, this process stops (SIGSTOP), and once it continues it is raw again.
  void stop_process();
  /// After a stop that nobody announced: the shell has set its own modes meanwhile.
  void renew() noexcept;

 private:
  int fd_;
  bool terminal_ = false, raw_ = false;
  struct termios before_ {};
};

}  // namespace kelp::sys
