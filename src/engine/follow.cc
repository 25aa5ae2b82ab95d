#include "engine/follow.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <tuple>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "monitor/protocol.h"
#include "sys/event_loop.h"
#include "sys/procfs.h"
#include "sys/pty.h"

namespace kelp::engine {
namespace {

using monitor::Frame;
using monitor::Header;
using monitor::Msg;

void send(int link, Header header, std::string_view payload = {}) {
  monitor::send_frame(link, header, payload, {}, true);  // a dead peer is seen when reading
}

[[noreturn]] void throw_failure(const Frame& frame) {
  const auto end = frame.payload.find('\0');
  std::string message(frame.payload.substr(0, end));
  const std::string hint(end == std::string_view::npos ? std::string_view{} : frame.payload.substr(end + 1));
  throw Error(std::move(message), static_cast<int>(frame.header.value)).with_hint(hint);
}

bool handles(int pid, int signal) {
  const auto status = sys::try_read_file(fmt::format("/proc/{}/status", pid));
  if (!status) return true;
  const auto at = status->find("\nSigCgt:\t");
  if (at == std::string::npos) return true;
  const auto caught = std::strtoull(status->c_str() + at + 9, nullptr, 16);
  return (caught >> (signal - 1) & 1) != 0;
}

void die_of(int signal) {
  ::signal(signal, SIG_DFL);
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, signal);
  ::raise(signal);
  ::sigprocmask(SIG_UNBLOCK, &one, nullptr);
}

/// What is waiting to be written to one of our descriptors; nothing more is read from the link until it is gone.
struct Output {
  int fd = -1;
  bool regular = false;  ///< never blocks
  Fd own;                ///< a pipe once more, non-blocking for us alone: PIPE_BUF is no bound then
  std::string pending;
  int watch = 0;
};

class Follower {
 public:
  Follower(int link, int pid, const FollowOptions& options, const sys::SignalFd& signals)
      : link_(link), pid_(pid), options_(options), signals_(signals), keys_(parse_detach_keys(options.detach_keys)) {}

  FollowResult run();

 private:
  void read_link();
  void write_out(Output& to, std::string_view bytes);
  void flush(Output& to);
  void read_stdin();
  void handle_signals();
  void send_size();
  bool job_control(int signal);

  const int link_, pid_;
  const FollowOptions& options_;
  const sys::SignalFd& signals_;
  sys::EventLoop loop_;
  FollowResult result_;
  Output out_{.fd = 1}, err_{.fd = 2};
  DetachKeys keys_;
  sys::RawMode* terminal_ = nullptr;
  int link_watch_ = 0, stdin_watch_ = 0;
  bool waiting_for_taken_ = false, stdin_ended_ = false, raw_ = false, warned_ = false;
};

FollowResult Follower::run() {
  for (Output* output : {&out_, &err_}) {
    struct stat info {};
    if (::fstat(output->fd, &info) < 0) continue;
    output->regular = S_ISREG(info.st_mode);
    if (!S_ISFIFO(info.st_mode)) continue;
    output->own =
        Fd(::open(fmt::format("/proc/self/fd/{}", output->fd).c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
    if (output->own) output->fd = output->own.get();
  }
  raw_ = options_.tty && options_.in && ::isatty(0) == 1;
  sys::RawMode raw(raw_ ? 0 : -1);
  terminal_ = &raw;
  send_size();
  link_watch_ = loop_.watch(link_, POLLIN, [this](short) { read_link(); });
  loop_.watch(signals_.fd(), POLLIN, [this](short) { handle_signals(); });
  if (options_.in) stdin_watch_ = loop_.watch(0, POLLIN, [this](short) { read_stdin(); });
  loop_.run();
  return result_;
}

void Follower::read_link() {
  for (int i = 0; i < 32; ++i) {
    if (!out_.pending.empty() || !err_.pending.empty()) return;
    Frame frame;
    const auto received = monitor::receive_frame(link_, frame, false);
    if (received == monitor::Received::nothing) return;
    if (received == monitor::Received::gone) {
      result_.lost = true;
      loop_.stop();
      return;
    }
    switch (frame.header.type) {
      case Msg::output:
        write_out(frame.header.flags == 2 ? err_ : out_, frame.payload);
        break;
      case Msg::input_taken:
        waiting_for_taken_ = false;
        if (stdin_ended_)
          send(link_, {.type = Msg::input_end});
        else if (stdin_watch_ != 0)
          loop_.change(stdin_watch_, POLLIN);
        break;
      case Msg::ended:
        if (frame.header.flags != 0) break;  // restarted by policy
        result_.code = static_cast<int>(frame.header.value);
        loop_.stop();
        return;
      case Msg::failed:
        throw_failure(frame);
      default:
        break;
    }
  }
}

void Follower::write_out(Output& to, std::string_view bytes) {
  if (options_.last_words != nullptr) {
    constexpr size_t kKept = 4096;
    std::string& words = *options_.last_words;
    words.append(bytes.substr(bytes.size() - std::min(bytes.size(), kKept)));
    if (words.size() > kKept) words.erase(0, words.size() - kKept);
  }
  if (to.fd < 0) return;
  to.pending.append(bytes);
  flush(to);
}

void Follower::flush(Output& to) {
  // A blocked terminal or pipe must not keep us from signals: a write of PIPE_BUF bytes to one that polls writable
  // does not block.
  size_t done = 0;
  while (done < to.pending.size()) {
    pollfd ready{to.fd, POLLOUT, 0};
    const bool whole = to.regular || to.own;
    if (!whole && ::poll(&ready, 1, 0) == 0) break;
    const size_t part = whole ? to.pending.size() - done : std::min<size_t>(to.pending.size() - done, 4096);
    const ssize_t count = ::write(to.fd, to.pending.data() + done, part);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) break;
    if (count < 0) {  // a terminal that has gone, a full disk: the container goes on without this reader
      log::warn("write to {}: {}", &to == &out_ ? "stdout" : "stderr", errno_text(errno));
      to.fd = -1;
      done = to.pending.size();
      break;
    }
    done += static_cast<size_t>(count);
  }
  to.pending.erase(0, done);
  if (to.pending.empty()) {
    if (to.watch == 0) return;
    loop_.forget(to.watch);
    to.watch = 0;
    loop_.change(link_watch_, POLLIN);
  } else if (to.watch == 0) {
    to.watch = loop_.watch(to.fd, POLLOUT, [this, &to](short) { flush(to); });
    loop_.change(link_watch_, -1);
  }
}

void Follower::read_stdin() {
  char buffer[monitor::kMaxPayload / 2];
  const ssize_t count = ::read(0, buffer, sizeof buffer);
  if (count < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (count <= 0) {
    loop_.forget(stdin_watch_);
    stdin_watch_ = 0;
    stdin_ended_ = true;
    if (raw_) {  // the terminal has gone
      result_.signal = SIGHUP;
      loop_.stop();
      return;
    }
    if (!waiting_for_taken_) send(link_, {.type = Msg::input_end});
    return;
  }
  const std::string_view typed(buffer, static_cast<size_t>(count));
  std::string pass;
  // Without a terminal the bytes are data, whatever they are.
  const bool detach = raw_ ? keys_.feed(typed, pass) : (pass = typed, false);
  if (!pass.empty()) {
    waiting_for_taken_ = true;
    loop_.change(stdin_watch_, -1);
    send(link_, {.type = Msg::input}, pass);
  }
  if (detach) {
    result_.detached = true;
    loop_.stop();
  }
}

void Follower::send_size() {
  if (!options_.tty) return;
  for (const int fd : {0, 1, 2}) {
    const auto size = sys::window_size(fd);
    if (!size || size->rows == 0) continue;
    send(link_, {.type = Msg::resize, .value = static_cast<std::uint32_t>(size->rows) << 16 | size->columns});
    return;
  }
}

/// Ctrl-Z at the shell's prompt is for this program, not for the container: it stops, and the container goes on.
bool Follower::job_control(int signal) {
  if (signal == SIGTSTP) terminal_->stop_process();
  if (signal == SIGCONT) terminal_->renew();
  if (signal != SIGTSTP && signal != SIGCONT) return false;
  send_size();  // of the terminal as it is now
  return true;
}

void Follower::handle_signals() {
  while (const auto signal = signals_.next()) {
    if (*signal == SIGWINCH) {
      send_size();
      continue;
    }
    if (job_control(*signal)) continue;
    // A terminal sends its signals as bytes; those that come nevertheless (hang-up, kill) are meant for us.
    if (!options_.sig_proxy || options_.tty) {
      result_.signal = *signal;
      loop_.stop();
      return;
    }
    const bool interrupt = *signal == SIGINT || *signal == SIGTERM;
    if (interrupt && !handles(pid_, *signal)) {
      if (warned_) {
        send(link_, {.type = Msg::stop, .value = 0});
        continue;
      }
      warned_ = true;
      log::warn(
          "the container's first process has no handler for {}, and as process 1 it ignores it: once more to "
          "kill it (`--init` helps)",
          sys::signal_name(*signal));
    }
    send(link_, {.type = Msg::signal, .value = static_cast<std::uint32_t>(*signal)});
  }
}

}  // namespace

const std::vector<int>& followed_signals() {
  static const std::vector<int> signals{SIGHUP,    SIGINT,  SIGQUIT, SIGTERM, SIGUSR1,  SIGUSR2, SIGALRM, SIGPROF,
                                        SIGVTALRM, SIGXCPU, SIGXFSZ, SIGIO,   SIGWINCH, SIGTSTP, SIGCONT};
  return signals;
}

void ask_to_attach(int link, const FollowOptions& options) {
  send(link, {.type = Msg::hello, .value = monitor::kVersion});
  const std::uint32_t streams = (options.in ? monitor::kStreamIn : 0) | (options.out ? monitor::kStreamOut : 0) |
                                (options.err ? monitor::kStreamErr : 0) |
                                (options.foreground ? monitor::kForeground : 0);
  std::uint16_t flags = 0;
  std::vector<int> pipes;
  if (options.foreground && !options.tty && options.last_words == nullptr) {
    for (const auto& [wanted, number, flag] :
         {std::tuple(options.out, 1, monitor::kPipeOut), std::tuple(options.err, 2, monitor::kPipeErr)}) {
      struct stat info {};
      if (!wanted || ::fstat(number, &info) < 0 || !S_ISFIFO(info.st_mode)) continue;
      flags = static_cast<std::uint16_t>(flags | flag);
      pipes.push_back(number);
    }
  }
  monitor::send_frame(link, {.type = Msg::attach, .flags = flags, .value = streams}, {}, pipes, true);
}

int wait_until_started(int link) {
  for (;;) {
    Frame frame;
    if (monitor::receive_frame(link, frame, true) != monitor::Received::frame)
      throw_error("the monitor ended before the container was started");
    if (frame.header.type == Msg::failed) throw_failure(frame);
    if (frame.header.type != Msg::started && frame.header.type != Msg::initialized) continue;
    for (const auto& warning : split(frame.payload, '\n'))
      if (!warning.empty()) log::warn("{}", warning);
    return static_cast<int>(frame.header.value);
  }
}

FollowResult follow(int link, int pid, const FollowOptions& options, const sys::SignalFd& signals) {
  const FollowResult result = Follower(link, pid, options, signals).run();
  if (result.signal != 0) die_of(result.signal);
  return result;
}

std::string parse_detach_keys(std::string_view text) {
  std::string keys;
  if (text.empty()) return keys;
  for (const auto& key : split(text, ',')) {
    if (key.size() == 1) {
      keys += key[0];
    } else if (key.size() == 6 && starts_with(key, "ctrl-")) {
      const char c = key[5];
      if (c >= 'a' && c <= 'z')
        keys += static_cast<char>(c - 'a' + 1);
      else if (c == '@')
        keys += '\0';
      else if (c >= '[' && c <= '_')
        keys += static_cast<char>(c - '[' + 27);
      else
        throw_usage("detach keys: {} is no key", quoted(key));
    } else {
      throw_usage("detach keys: {} is no key", quoted(key));
    }
  }
  return keys;
}

bool DetachKeys::feed(std::string_view typed, std::string& pass) {
  for (const char c : typed) {
    if (keys_.empty()) {
      pass += c;
      continue;
    }
    if (c == keys_[matched_]) {
      if (++matched_ == keys_.size()) {
        matched_ = 0;
        return true;
      }
      continue;
    }
    pass.append(keys_, 0, matched_);
    matched_ = 0;
    if (c == keys_[0])
      matched_ = keys_.size() > 1 ? 1 : 0;
    else
      pass += c;
  }
  return false;
}

}  // namespace kelp::engine
