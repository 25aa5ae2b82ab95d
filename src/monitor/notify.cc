#include "monitor/notify.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include <fmt/core.h>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"

namespace kelp::monitor {
namespace {

/// "@name" is an abstract address.
socklen_t fill_address(sockaddr_un& address, const std::string& path) {
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) throw SysError("NOTIFY_SOCKET " + path, ENAMETOOLONG);
  std::memcpy(address.sun_path, path.data(), path.size());
  const bool abstract = path.front() == '@';
  if (abstract) address.sun_path[0] = '\0';
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (abstract ? 0 : 1));
}

Fd datagram_socket() {
  Fd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) throw_errno("make a socket");
  return socket;
}

}  // namespace

void Notify::open(const std::string& target, const std::string& mode, const std::string& run_dir) {
  sockaddr_un address{};
  const socklen_t size = fill_address(address, target);
  to_ = datagram_socket();
  if (::connect(to_.get(), reinterpret_cast<const sockaddr*>(&address), size) < 0)
    throw_errno("connect to NOTIFY_SOCKET {}", target);
  if (mode != "container") return;
  const std::string directory = run_dir + "/notify";
  if (::mkdir(directory.c_str(), 0755) < 0 && errno != EEXIST) throw_errno("make {}", directory);
  ::chmod(directory.c_str(), 0755);  // past our umask: the container's users come here
  const Fd dir(::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!dir) throw_errno("open {}", directory);
  const std::string path = fmt::format("/proc/self/fd/{}/notify.sock", dir.get());
  sockaddr_un own{};
  const socklen_t own_size = fill_address(own, path);
  ::unlinkat(dir.get(), "notify.sock", 0);
  from_ = datagram_socket();
  if (::bind(from_.get(), reinterpret_cast<const sockaddr*>(&own), own_size) < 0)
    throw_errno("bind {}/notify.sock", directory);
  ::chmod(path.c_str(), 0777);
  loop_.watch(from_.get(), POLLIN, [this](short) { pass_on(); });
}

void Notify::send(std::string_view text) const noexcept {
  if (to_ && ::send(to_.get(), text.data(), text.size(), MSG_NOSIGNAL) < 0)
    log::debug("notify systemd: {}", errno_text(errno));
}

void Notify::pass_on() {
  char text[4096];
  const ssize_t count = ::recv(from_.get(), text, sizeof text, 0);
  if (count <= 0) return;
  // The main process stays ours: the container counts its own way. Only words that cannot redirect the service.
  for (const auto& line : split(std::string_view(text, static_cast<size_t>(count)), '\n'))
    for (const char* word : {"READY=", "STATUS=", "RELOADING=", "STOPPING=", "ERRNO=", "WATCHDOG=1", "EXTEND_TIMEOUT_"})
      if (starts_with(line, word)) send(line);
}

void Notify::started(const std::string& mode) {
  if (!to_) return;
  send(fmt::format("MAINPID={}", ::getpid()) + (mode == "conmon" ? "\nREADY=1" : ""));
}

void Notify::healthy(const std::string& mode) {
  if (mode == "healthy") send("READY=1");
}

}  // namespace kelp::monitor
