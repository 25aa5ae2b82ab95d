#include "monitor/streams.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <tuple>

#include "base/error.h"
#include "sys/pty.h"

namespace kelp::monitor {
namespace {

/// As much as the log lays out for one write, with lines of a usual length. Where a client gets frames: one of them.
char chunk[2 * kMaxPayload];
/// Reads of one source before the loop looks at the others.
constexpr int kTurns = 16;
/// A container that has much to write gets a larger pipe, so that it is woken less often. Not from the start: pipes
/// share an allowance of 64 MB per user, and beyond that all his pipes become small.
constexpr int kPipeSize = 512 << 10;

std::pair<Fd, Fd> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) throw_errno("make a pipe");
  return {Fd(ends[0]), Fd(ends[1])};
}

void set_nonblocking(int fd) { ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK); }

}  // namespace

Streams::Streams(sys::EventLoop& loop, LogFile& log, Clients& clients) : loop_(loop), log_(log), clients_(clients) {
  clients_.on_unblocked([this] { pause(false); });
}
Streams::~Streams() { discard(); }

std::vector<std::pair<int, int>> Streams::open(const Plan& plan) {
  discard();
  opened_ = true;
  close_input_ = std::exchange(ended_early_, false);
  if (plan.rows != 0 && rows_ == 0) rows_ = plan.rows, columns_ = plan.columns;
  if (plan.log_driver == "passthrough") return {{0, 0}, {1, 1}, {2, 2}};
  if (plan.tty) return {{0, -1}, {1, -1}, {2, -1}};
  int in = -1;
  if (plan.interactive) {
    std::tie(far_[0], input_) = make_pipe();
    set_nonblocking(input_.get());
    in = far_[0].get();
    if (!pending_input_.empty())
      push_input();
    else if (close_input_)
      input_.reset();
  }
  std::tie(sources_[0].fd, far_[1]) = make_pipe();
  std::tie(sources_[1].fd, far_[2]) = make_pipe();
  sources_[1].stream = 2;
  sources_[0].grown = sources_[1].grown = false;
  for (auto& source : sources_) set_nonblocking(source.fd.get());
  return {{0, in}, {1, far_[1].get()}, {2, far_[2].get()}};
}

void Streams::close_far_ends() noexcept {
  for (auto& fd : far_) fd.reset();
}

void Streams::set_terminal(Fd master) {
  set_nonblocking(master.get());
  terminal_ = true;
  input_ = Fd(::fcntl(master.get(), F_DUPFD_CLOEXEC, 0));
  sources_[0].fd = std::move(master);
  if (rows_ != 0) resize(rows_, columns_);
  if (!pending_input_.empty()) push_input();
}

void Streams::start() {
  for (auto& source : sources_) {
    if (!source.fd) continue;
    source.watch = loop_.watch(source.fd.get(), POLLIN, [this, &source](short) {
      // Several turns at once save a poll for each; after that the others have theirs.
      int turn = 0;
      while (turn < kTurns && !clients_.blocked() && pump(source)) ++turn;
      if (turn > 1 && !source.grown && !terminal_) {
        source.grown = true;
        ::fcntl(source.fd.get(), F_SETPIPE_SZ, kPipeSize);
        if (const int pipe = clients_.pipe(source.stream); pipe >= 0) ::fcntl(pipe, F_SETPIPE_SZ, kPipeSize);
      }
    });
  }
  if (clients_.blocked()) pause(true);
}

/// All writers are gone; a terminal without users says EIO.
bool Streams::at_end(Source& source) {
  loop_.forget(source.watch);
  source.watch = 0;
  if (!terminal_) source.fd.reset();
  return false;
}

bool Streams::pump(Source& source) {
  if (!source.fd) return false;
  if (const int pipe = terminal_ ? -1 : clients_.pipe(source.stream); pipe >= 0) return pass_on(source, pipe);
  ssize_t count = 0;
  do {
    count = ::read(source.fd.get(), chunk, kMaxPayload);
  } while (count < 0 && errno == EINTR);
  if (count < 0 && errno == EAGAIN) return false;
  if (count <= 0) return at_end(source);
  const std::string_view bytes(chunk, static_cast<size_t>(count));
  log_.write(source.stream, bytes);
  clients_.output(source.stream, bytes);
  if (clients_.blocked()) pause(true);
  return true;
}

bool Streams::pass_on(Source& source, int pipe) {
  const bool listened = clients_.listens(source.stream), copied = listened || log_.keeps();
  ssize_t count = 0;
  do {
    count = copied ? ::tee(source.fd.get(), pipe, listened ? kMaxPayload : sizeof chunk, SPLICE_F_NONBLOCK)
                   : ::splice(source.fd.get(), nullptr, pipe, nullptr, kPipeSize, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
  } while (count < 0 && errno == EINTR);
  if (count == 0) return at_end(source);
  if (count < 0 && errno == EAGAIN) {  // nothing here, or no room there
    int waiting = 0;
    if (::ioctl(source.fd.get(), FIONREAD, &waiting) == 0 && waiting > 0) {
      clients_.wait_for_room(source.stream);
      pause(true);
    }
    return false;
  }
  if (count < 0) {
    clients_.give_up_pipe(source.stream);
    return pump(source);
  }
  // What the reader has got stays in our pipe until it is read here.
  for (ssize_t done = 0; copied && done < count;) {
    const ssize_t got = ::read(source.fd.get(), chunk + done, static_cast<size_t>(count - done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return at_end(source);  // cannot be: nobody else reads it
    done += got;
  }
  if (!copied) return true;
  const std::string_view bytes(chunk, static_cast<size_t>(count));
  log_.write(source.stream, bytes);
  if (listened) clients_.output(source.stream, bytes);
  if (clients_.blocked()) pause(true);
  return true;
}

void Streams::pause(bool paused) {
  for (auto& source : sources_)
    if (source.watch != 0) loop_.change(source.watch, paused ? static_cast<short>(-1) : static_cast<short>(POLLIN));
}

void Streams::drain() {
  const auto wait_for_clients = [this] {
    while (clients_.blocked()) loop_.run_once(std::chrono::milliseconds(-1));
  };
  wait_for_clients();
  for (auto& source : sources_) {
    for (bool more = true; more;) {
      more = pump(source) || clients_.blocked();
      wait_for_clients();
    }
  }
  discard();
}

void Streams::discard() {
  for (auto& source : sources_) {
    loop_.forget(source.watch);
    source.watch = 0;
    source.fd.reset();
  }
  close_far_ends();
  loop_.forget(input_watch_);
  input_watch_ = 0;
  input_.reset();
  terminal_ = false;
  if (opened_ && !pending_input_.empty()) input_done();
}

void Streams::input(int client, std::string_view bytes) {
  if (!opened_) {  // kelp does not wait for the start before it sends
    pending_input_.append(bytes);
    input_client_ = client;
    return;
  }
  if (!input_ || bytes.empty()) {  // nobody reads: taken and thrown away, as a closed pipe does with SIGPIPE ignored
    clients_.tell(client, {.type = Msg::input_taken});
    return;
  }
  if (input_client_ != 0 && input_client_ != client) clients_.tell(input_client_, {.type = Msg::input_taken});
  pending_input_.append(bytes);
  input_client_ = client;
  push_input();
}

void Streams::push_input() {
  while (!pending_input_.empty()) {
    const ssize_t count = ::write(input_.get(), pending_input_.data(), pending_input_.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) {
      if (input_watch_ == 0) input_watch_ = loop_.watch(input_.get(), POLLOUT, [this](short) { push_input(); });
      return;
    }
    if (count < 0) {  // EPIPE: the container has closed its stdin
      pending_input_.clear();
      close_input_ = true;
      break;
    }
    pending_input_.erase(0, static_cast<size_t>(count));
  }
  input_done();
}

void Streams::input_done() {
  loop_.forget(input_watch_);
  input_watch_ = 0;
  pending_input_.clear();
  pending_input_.shrink_to_fit();
  if (const int client = std::exchange(input_client_, 0); client != 0)
    clients_.tell(client, {.type = Msg::input_taken});
  if (close_input_ && !terminal_) input_.reset();
}

void Streams::end_input() {
  if (!opened_) {
    ended_early_ = true;
    return;
  }
  if (terminal_) return;  // a terminal has no end: its user types one
  close_input_ = true;
  if (pending_input_.empty()) input_.reset();
}

void Streams::resize(unsigned rows, unsigned columns) {
  rows_ = rows;
  columns_ = columns;
  if (terminal_ && input_)
    sys::set_window_size(input_.get(), {static_cast<unsigned short>(rows), static_cast<unsigned short>(columns)});
}

}  // namespace kelp::monitor
