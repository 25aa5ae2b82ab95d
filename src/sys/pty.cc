#include "sys/pty.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>

#include "base/error.h"

namespace kelp::sys {

std::optional<WindowSize> window_size(int fd) noexcept {
  winsize size{};
  if (::ioctl(fd, TIOCGWINSZ, &size) < 0) return std::nullopt;
  return WindowSize{size.ws_row, size.ws_col};
}

void set_window_size(int fd, WindowSize size) noexcept {
  winsize native{};
  native.ws_row = size.rows;
  native.ws_col = size.columns;
  ::ioctl(fd, TIOCSWINSZ, &native);
}

Pty open_pty() {
  Pty pty;
  pty.master = Fd(::open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!pty.master) throw_errno("open /dev/ptmx");
  int unlocked = 0;
  if (::ioctl(pty.master.get(), TIOCSPTLCK, &unlocked) < 0) throw_errno("unlock a pseudo terminal");
  pty.slave = Fd(::ioctl(pty.master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!pty.slave) throw_errno("open the peer of a pseudo terminal");
  return pty;
}

ConsoleSocket::ConsoleSocket(int dirfd, std::string name) : dirfd_(dirfd), name_(std::move(name)) {
  listener_ = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!listener_) throw_errno("make a socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", dirfd_, name_.c_str());
  if (::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
    throw_errno("bind {}", name_);
  if (::listen(listener_.get(), 1) < 0) throw_errno("listen on {}", name_);
}

ConsoleSocket::~ConsoleSocket() { ::unlinkat(dirfd_, name_.c_str(), 0); }

Fd ConsoleSocket::receive(int milliseconds) {
  pollfd coming{listener_.get(), POLLIN, 0};
  if (::poll(&coming, 1, milliseconds) <= 0) throw_error("the runtime did not send a terminal");
  const Fd connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!connection) throw_errno("accept the runtime's connection");
  pollfd ready{connection.get(), POLLIN, 0};
  if (::poll(&ready, 1, milliseconds) <= 0) throw_error("the runtime did not send a terminal");
  char name[4096];
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  iovec part{name, sizeof name};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (::recvmsg(connection.get(), &message, MSG_CMSG_CLOEXEC) < 0) throw_errno("receive a terminal");
  const cmsghdr* const rights = CMSG_FIRSTHDR(&message);
  if (rights == nullptr || rights->cmsg_type != SCM_RIGHTS) throw_error("the runtime did not send a terminal");
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(rights), sizeof fd);
  return Fd(fd);
}

RawMode::RawMode(int fd) : fd_(fd) {
  if (::tcgetattr(fd_, &before_) < 0) return;
  terminal_ = true;
  enter();
}

void RawMode::enter() {
  if (!terminal_ || raw_) return;
  struct termios raw = before_;
  ::cfmakeraw(&raw);
  if (::tcsetattr(fd_, TCSANOW, &raw) < 0) throw_errno("set the terminal to raw mode");
  raw_ = true;
}

void RawMode::stop_process() {
  const bool was_raw = raw_;
  restore();
  ::raise(SIGSTOP);
  if (was_raw) enter();
}

void RawMode::renew() noexcept {
  if (!raw_) return;
  struct termios raw = before_;
  ::cfmakeraw(&raw);
  ::tcsetattr(fd_, TCSANOW, &raw);
}

void RawMode::restore() noexcept {
  if (!raw_) return;
  ::tcsetattr(fd_, TCSADRAIN, &before_);
  raw_ = false;
}

}  // namespace kelp::sys
