#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/owned.h"
#include "monitor/clients.h"
#include "monitor/log_file.h"
#include "monitor/plan.h"
#include "sys/event_loop.h"

namespace kelp::monitor {

/// stdin, stdout and stderr of the container: pipes, or a terminal that the runtime hands over. What comes out goes to
/// the log and to the clients; one read of up to 32 KB at a time, and none while a client has not taken the last one.
/// Into a pipe that the foreground client has given it goes within the kernel: by splice, or by tee where it is also
/// logged.
class Streams {
 public:
  Streams(sys::EventLoop& loop, LogFile& log, Clients& clients);
  ~Streams();
  Streams(const Streams&) = delete;
  Streams& operator=(const Streams&) = delete;

  /// {number in the child, our descriptor} for the runtime: the far ends of new pipes, /dev/null with a terminal (which
  /// comes later), our own 0, 1 and 2 with log driver passthrough.
  std::vector<std::pair<int, int>> open(const Plan& plan);
  void close_far_ends() noexcept;
  void set_terminal(Fd master);

  /// Begins to read. Nothing is read before that, so that the runtime's own complaint can be taken back.
  void start();
  /// After the container's end: all that is left in pipes and terminal goes out, then everything is closed. Runs the
  /// loop while a client holds it back.
  void drain();
  /// Drops everything unread (a failed start).
  void discard();

  void input(int client, std::string_view bytes);
  void end_input();
  void resize(unsigned rows, unsigned columns);

 private:
  struct Source {
    Fd fd;
    unsigned stream = 1;
    int watch = 0;
    bool grown = false;  ///< the pipe has been made larger
  };
  /// One read; false when there is nothing (more) now.
  bool pump(Source& source);
  bool pass_on(Source& source, int pipe);
  bool at_end(Source& source);
  void pause(bool paused);
  void push_input();
  void input_done();

  sys::EventLoop& loop_;
  LogFile& log_;
  Clients& clients_;
  Source sources_[2];
  Fd far_[3], input_, null_;
  bool opened_ = false, terminal_ = false, close_input_ = false, ended_early_ = false;
  unsigned rows_ = 0, columns_ = 0;
  std::string pending_input_;
  int input_client_ = 0, input_watch_ = 0;
};

}  // namespace kelp::monitor
