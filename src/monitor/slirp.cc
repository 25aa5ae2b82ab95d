#include "monitor/slirp.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "sys/spawn.h"

namespace kelp::monitor {
namespace {

constexpr const char* kSocket = "slirp.sock";
constexpr int kReadyFd = 3, kExitFd = 4, kDirFd = 5;
constexpr size_t kKeptErrors = 2048;

std::pair<Fd, Fd> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) throw_errno("make a pipe");
  return {Fd(ends[0]), Fd(ends[1])};
}

/// The last line that says something: slirp4netns prints its configuration before it.
std::string last_line(std::string_view text) {
  while (!text.empty()) {
    const auto newline = text.rfind('\n');
    const auto line = trim(newline == std::string_view::npos ? text : text.substr(newline + 1));
    if (!line.empty()) return printable(line);
    if (newline == std::string_view::npos) break;
    text = text.substr(0, newline);
  }
  return {};
}

}  // namespace

void Slirp::launch(pid_t init) {
  if (plan_.slirp.empty()) return;
  auto [ready, ready_far] = make_pipe();
  auto [exit_far, exit_end] = make_pipe();
  auto [errors, errors_far] = make_pipe();

  sys::SpawnRequest request;
  request.path = plan_.slirp.front();
  request.argv = plan_.slirp;
  request.argv.front() = "slirp4netns";
  for (const auto& argument :
       {std::string("-r"), std::to_string(kReadyFd), std::string("-e"), std::to_string(kExitFd),
        std::string("--api-socket"), fmt::format("/proc/self/fd/{}/{}", kDirFd, kSocket),
        std::string("--netns-type=path"), fmt::format("/proc/{}/ns/net", init), std::string("tap0")})
    request.argv.push_back(argument);
  request.fds = {{0, -1},
                 {1, errors_far.get()},
                 {2, errors_far.get()},
                 {kReadyFd, ready_far.get()},
                 {kExitFd, exit_far.get()},
                 {kDirFd, run_dir_}};
  ::unlinkat(run_dir_, kSocket, 0);
  sys::Child child = sys::spawn(request);
  ready_far.reset();
  exit_far.reset();
  errors_far.reset();
  pid_ = child.pid;
  exit_end_ = std::move(exit_end);
  errors_ = std::move(errors);
  ready_ = std::move(ready);
  ::fcntl(errors_.get(), F_SETFL, O_NONBLOCK);
  error_text_.clear();
  error_watch_ = loop_.watch(errors_.get(), POLLIN, [this](short) {
    char text[512];
    const ssize_t count = ::read(errors_.get(), text, sizeof text);
    if (count > 0) error_text_.append(text, static_cast<size_t>(count));
    if (error_text_.size() > kKeptErrors) error_text_.erase(0, error_text_.size() - kKeptErrors);
    if (count == 0) loop_.forget(std::exchange(error_watch_, 0));
  });
  child.detach();
  reaper_.expect(pid_, [this](int code) {
    log::debug("slirp4netns has ended with {}", code);
    pid_ = 0;
    if (exit_end_ && died_) died_();
  });
}

void Slirp::start(pid_t init, const Wait& wait) {
  if (plan_.slirp.empty()) return;
  if (!ready_) launch(init);
  const Fd ready = std::move(ready_);
  bool answered = false, is_ready = false;
  const int watch = loop_.watch(ready.get(), POLLIN, [&, ready_fd = ready.get()](short) {
    char byte = 0;
    is_ready = ::read(ready_fd, &byte, 1) == 1;
    answered = true;
  });
  const bool in_time = wait([&] { return answered; }, 20000);
  loop_.forget(watch);
  if (!is_ready) {
    // Its words may still be in the pipe.
    for (int i = 0; i < 8 && error_watch_ != 0 && loop_.run_once(std::chrono::milliseconds(20)); ++i) {
    }
    const std::string words = last_line(error_text_);
    stop();
    if (!words.empty()) throw_error("slirp4netns: {}", words);
    throw_error("slirp4netns {}", in_time ? "ended before it was ready" : "was not ready in time");
  }
  for (const auto& [words, json] : plan_.forwards) forward(words, json);
}

void Slirp::forward(const std::string& words, const std::string& request) const {
  const Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) throw_errno("make a socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", run_dir_, kSocket);
  const timeval limit{.tv_sec = 10, .tv_usec = 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
    throw_errno("publish port {}: connect to slirp4netns", words);
  std::string_view rest = request;
  while (!rest.empty()) {
    const ssize_t count = ::send(socket.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
    if (count < 0) throw_errno("publish port {}: ask slirp4netns", words);
    rest.remove_prefix(static_cast<size_t>(count));
  }
  ::shutdown(socket.get(), SHUT_WR);
  std::string reply;
  char buffer[512];
  for (;;) {
    const ssize_t count = ::recv(socket.get(), buffer, sizeof buffer, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    reply.append(buffer, static_cast<size_t>(count));
  }
  if (reply.find("\"return\"") != std::string::npos) return;
  // One text for a taken port and a privileged one; which of them it was is known to who probed the port before.
  throw_error("publish port {}: slirp4netns refused: {}", words,
              reply.empty() ? std::string("no reply") : printable(trim(reply)));
}

void Slirp::stop() noexcept {
  exit_end_.reset();
  ready_.reset();
  if (error_watch_ != 0) loop_.forget(std::exchange(error_watch_, 0));
  errors_.reset();
}

}  // namespace kelp::monitor
