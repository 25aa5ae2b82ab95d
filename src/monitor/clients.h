#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/owned.h"
#include "monitor/protocol.h"
#include "sys/event_loop.h"

namespace kelp::monitor {

/// What a client may ask of the container.
class Control {
 public:
  virtual ~Control() = default;
  /// Takes bytes for stdin; `client` is told input_taken once they are in the pipe.
  virtual void input(int client, std::string_view bytes) = 0;
  virtual void end_input() = 0;
  virtual void resize(unsigned rows, unsigned columns) = 0;
  /// To the container, or to the process that this client has started by exec().
  virtual void signal(int client, int number) = 0;
  virtual void stop(int number, unsigned seconds) = 0;
  virtual void user_stop() = 0;
  virtual void exec(int client, Frame& frame) = 0;
  virtual void health_check(int client) = 0;
  virtual void update(int client, std::string_view change) = 0;
  virtual void rename(int client, std::string_view name) = 0;
  virtual void go() = 0;
  virtual void client_gone(int client) = 0;
  /// The value of `started` for a client that attaches now, 0 while the container has not been started.
  [[nodiscard]] virtual int running_pid() const = 0;
};

/// The connections of kelp: the link that started this monitor and those that came over attach.sock.
class Clients {
 public:
  Clients(sys::EventLoop& loop, Control& control);
  ~Clients();
  Clients(const Clients&) = delete;
  Clients& operator=(const Clients&) = delete;

  void listen(int run_dir);
  /// No new connections, and the name is gone.
  void stop_listening(int run_dir) noexcept;
  int adopt(Fd socket);
  [[nodiscard]] bool connected(int client) const noexcept { return find(client) != nullptr; }

  /// Sends what a stream gave to all that are attached to it. `bytes` must stay as they are while blocked().
  void output(unsigned stream, std::string_view bytes);
  /// The pipe that the foreground client has given for a stream, -1 = none.
  [[nodiscard]] int pipe(unsigned stream) const noexcept;
  /// It is full: blocked() until it has room again.
  void wait_for_room(unsigned stream);
  /// Nobody reads it any more: from now on its client gets the stream itself.
  void give_up_pipe(unsigned stream);
  /// All has been written: whoever reads the pipes must see their end as soon as the client has gone.
  void close_pipes() noexcept;
  /// Some client wants the stream by output().
  [[nodiscard]] bool listens(unsigned stream) const noexcept;
  /// A client has not taken its last output yet: nothing more may be read from the container.
  [[nodiscard]] bool blocked() const noexcept;
  void on_unblocked(std::function<void()> handler) { unblocked_ = std::move(handler); }

  void tell(int client, Header header, std::string_view payload = {});
  void tell_all(Header header, std::string_view payload = {});
  /// Everything told has left (or its client has gone).
  [[nodiscard]] bool flushed() const noexcept;

 private:
  struct Client;
  Client* find(int id) const noexcept;
  void accept();
  void serve(int id, short events);
  bool handle(Client& client, Frame& frame);
  void flush(Client& client);
  void take_pipes(Client& client, Frame& frame);
  void drop(int id);

  sys::EventLoop& loop_;
  Control& control_;
  Fd listener_;
  int listen_watch_ = 0, next_id_ = 1;
  std::vector<std::unique_ptr<Client>> clients_;
  std::function<void()> unblocked_;
};

}  // namespace kelp::monitor
