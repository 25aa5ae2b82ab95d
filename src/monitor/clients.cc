#include "monitor/clients.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/log.h"

namespace kelp::monitor {
namespace {

/// How long a client other than the foreground one may keep the container from writing.
constexpr std::chrono::seconds kPatience(5);
/// Frames handled per turn: a client that floods us must not starve the streams.
constexpr int kFramesPerTurn = 64;

}  // namespace

struct Clients::Client {
  int id = 0;
  Fd socket;
  int watch = 0, timer = 0;
  bool greeted = false, foreground = false;
  std::uint32_t streams = 0;
  Header late_header{};
  std::string_view late;  ///< output that did not fit into the socket yet
  bool is_late = false;
  std::vector<std::pair<Header, std::string>> queue;
  struct Pipe {
    Fd fd;
    int room_watch = 0;  ///< it is full
  } pipes[2];            ///< for stdout and stderr
};

namespace {
size_t index_of(unsigned stream) { return stream == 2 ? 1 : 0; }
std::uint32_t wanted_by(unsigned stream) { return stream == 2 ? kStreamErr : kStreamOut; }
}  // namespace

Clients::Clients(sys::EventLoop& loop, Control& control) : loop_(loop), control_(control) {}
Clients::~Clients() = default;

Clients::Client* Clients::find(int id) const noexcept {
  for (const auto& client : clients_)
    if (client->id == id) return client.get();
  return nullptr;
}

void Clients::listen(int run_dir) {
  listener_ = listen_at(run_dir, "attach.sock");
  listen_watch_ = loop_.watch(listener_.get(), POLLIN, [this](short) { accept(); });
}

void Clients::stop_listening(int run_dir) noexcept {
  if (!listener_) return;
  loop_.forget(listen_watch_);
  ::unlinkat(run_dir, "attach.sock", 0);
  // Whoever connected just before the name went still gets an answer: the exit.
  accept();
  listener_.reset();
}

void Clients::accept() {
  for (;;) {
    Fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!socket) return;
    adopt(std::move(socket));
  }
}

int Clients::adopt(Fd socket) {
  auto client = std::make_unique<Client>();
  const int id = client->id = next_id_++;
  client->watch = loop_.watch(socket.get(), POLLIN, [this, id](short events) { serve(id, events); });
  client->socket = std::move(socket);
  clients_.push_back(std::move(client));
  return id;
}

void Clients::drop(int id) {
  Client* const client = find(id);
  if (client == nullptr) return;
  loop_.forget(client->watch);
  loop_.cancel(client->timer);
  for (const auto& pipe : client->pipes) loop_.forget(pipe.room_watch);
  std::erase_if(clients_, [id](const auto& c) { return c->id == id; });
  control_.client_gone(id);
  if (!blocked() && unblocked_) unblocked_();
}

void Clients::serve(int id, short events) {
  if ((events & POLLOUT) != 0) {
    if (Client* const client = find(id)) flush(*client);
  }
  if ((events & (POLLIN | POLLHUP | POLLERR)) == 0) return;
  for (int i = 0; i < kFramesPerTurn; ++i) {
    Client* const client = find(id);
    if (client == nullptr) return;
    Frame frame;
    const Received received = receive_frame(client->socket.get(), frame, false);
    if (received == Received::nothing) return;
    if (received == Received::gone || !handle(*client, frame)) {
      drop(id);
      return;
    }
  }
}

bool Clients::handle(Client& client, Frame& frame) {
  const Header& header = frame.header;
  const int id = client.id;
  if (!client.greeted) {
    if (header.type != Msg::hello) return false;
    client.greeted = true;
    tell(id, {.type = Msg::hello, .value = kVersion});
    return true;
  }
  switch (header.type) {
    case Msg::attach: {
      client.streams = header.value & (kStreamIn | kStreamOut | kStreamErr);
      client.foreground = (header.value & kForeground) != 0;
      if (client.foreground) take_pipes(client, frame);
      if (const int pid = control_.running_pid(); pid != 0 && !client.foreground)
        tell(id, {.type = Msg::started, .value = static_cast<std::uint32_t>(pid)});
      break;
    }
    case Msg::input:
      control_.input(id, frame.payload);
      break;
    case Msg::input_end:
      control_.end_input();
      break;
    case Msg::resize:
      control_.resize(header.value >> 16, header.value & 0xffff);
      break;
    case Msg::signal:
      control_.signal(id, static_cast<int>(header.value));
      break;
    case Msg::stop:
      control_.stop(header.flags, header.value);
      break;
    case Msg::user_stop:
      control_.user_stop();
      break;
    case Msg::exec:
      control_.exec(id, frame);
      break;
    case Msg::health_check:
      control_.health_check(id);
      break;
    case Msg::update:
      control_.update(id, frame.payload);
      break;
    case Msg::rename:
      control_.rename(id, frame.payload);
      break;
    case Msg::open_gate:
      control_.go();
      break;
    default:
      tell(id, {.type = Msg::unsupported, .value = static_cast<std::uint32_t>(header.type)});
  }
  return true;
}

void Clients::output(unsigned stream, std::string_view bytes) {
  const std::uint32_t wanted = wanted_by(stream);
  const Header header{.type = Msg::output, .flags = static_cast<std::uint16_t>(stream)};
  std::vector<int> gone;
  for (const auto& client : clients_) {
    if ((client->streams & wanted) == 0) continue;
    const Sent sent = client->queue.empty() ? send_frame(client->socket.get(), header, bytes) : Sent::would_block;
    if (sent == Sent::gone) gone.push_back(client->id);
    if (sent != Sent::would_block) continue;
    client->late_header = header;
    client->late = bytes;
    client->is_late = true;
    loop_.change(client->watch, POLLIN | POLLOUT);
    if (!client->foreground)
      client->timer = loop_.after(kPatience, [this, id = client->id] {
        log::warn("a client that does not read its output was disconnected");
        drop(id);
      });
  }
  for (const int id : gone) drop(id);
}

bool Clients::blocked() const noexcept {
  return std::any_of(clients_.begin(), clients_.end(), [](const auto& c) {
    return c->is_late || c->pipes[0].room_watch != 0 || c->pipes[1].room_watch != 0;
  });
}

void Clients::take_pipes(Client& client, Frame& frame) {
  size_t next = 0;
  for (const unsigned stream : {1U, 2U}) {
    if ((frame.header.flags & stream) == 0 || next == frame.fds.size()) continue;
    Fd fd = std::move(frame.fds[next++]);
    struct stat info {};
    if ((client.streams & wanted_by(stream)) == 0 || ::fstat(fd.get(), &info) < 0 || !S_ISFIFO(info.st_mode)) continue;
    client.pipes[index_of(stream)].fd = std::move(fd);
    client.streams &= ~wanted_by(stream);
  }
}

int Clients::pipe(unsigned stream) const noexcept {
  for (const auto& client : clients_)
    if (client->pipes[index_of(stream)].fd) return client->pipes[index_of(stream)].fd.get();
  return -1;
}

void Clients::wait_for_room(unsigned stream) {
  for (const auto& client : clients_) {
    auto& pipe = client->pipes[index_of(stream)];
    if (!pipe.fd || pipe.room_watch != 0) continue;
    pipe.room_watch = loop_.watch(pipe.fd.get(), POLLOUT, [this, &pipe](short) {
      loop_.forget(pipe.room_watch);
      pipe.room_watch = 0;
      if (!blocked() && unblocked_) unblocked_();
    });
  }
}

void Clients::give_up_pipe(unsigned stream) {
  for (const auto& client : clients_) {
    auto& pipe = client->pipes[index_of(stream)];
    if (!pipe.fd) continue;
    loop_.forget(pipe.room_watch);
    pipe = {};
    client->streams |= wanted_by(stream);
  }
}

void Clients::close_pipes() noexcept {
  for (const auto& client : clients_)
    for (auto& pipe : client->pipes) {
      loop_.forget(pipe.room_watch);
      pipe = {};
    }
}

bool Clients::listens(unsigned stream) const noexcept {
  return std::any_of(clients_.begin(), clients_.end(),
                     [stream](const auto& c) { return (c->streams & wanted_by(stream)) != 0; });
}

void Clients::flush(Client& client) {
  // What is queued was told before the late output when there was both (see output()), or after it when tell() found
  // it waiting; either way the output of a stream stays in order, and `ended` comes last.
  const bool was_late = client.is_late;
  if (client.is_late) {
    const Sent sent = send_frame(client.socket.get(), client.late_header, client.late);
    if (sent == Sent::would_block) return;
    if (sent == Sent::gone) return drop(client.id);
    client.is_late = false;
    loop_.cancel(client.timer);
  }
  while (!client.queue.empty()) {
    const auto& [header, payload] = client.queue.front();
    const Sent sent = send_frame(client.socket.get(), header, payload);
    if (sent == Sent::would_block) return;
    if (sent == Sent::gone) return drop(client.id);
    client.queue.erase(client.queue.begin());
  }
  loop_.change(client.watch, POLLIN);
  if (was_late && !blocked() && unblocked_) unblocked_();
}

void Clients::tell(int id, Header header, std::string_view payload) {
  Client* const client = find(id);
  if (client == nullptr) return;
  if (!client->is_late && client->queue.empty()) {
    const Sent sent = send_frame(client->socket.get(), header, payload);
    if (sent == Sent::yes || sent == Sent::gone) return;  // its end-of-file is seen by serve()
  }
  client->queue.emplace_back(header, std::string(payload));
  loop_.change(client->watch, POLLIN | POLLOUT);
}

void Clients::tell_all(Header header, std::string_view payload) {
  for (size_t i = 0; i < clients_.size(); ++i)
    if (clients_[i]->greeted) tell(clients_[i]->id, header, payload);
}

bool Clients::flushed() const noexcept {
  return std::all_of(clients_.begin(), clients_.end(), [](const auto& c) { return !c->is_late && c->queue.empty(); });
}

}  // namespace kelp::monitor
