#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/owned.h"

namespace kelp::sys {

/// One end of a connected pair of SOCK_SEQPACKET sockets: whole frames, descriptors travel with them. The base of
/// every protocol between a parent and its child. End-of-file means that the peer has died or has closed its end.
class Link {
 public:
  struct Frame {
    std::string data;
    std::vector<Fd> fds;  ///< CLOEXEC
  };

  Link() = default;
  explicit Link(Fd socket) noexcept : socket_(std::move(socket)) {}
  /// Two connected ends, CLOEXEC.
  static std::pair<Link, Link> pair();

  /// One frame of 1 byte to ~200 KB and up to 250 borrowed descriptors. throws SysError(EPIPE) when the peer is gone.
  void send(std::string_view data, std::initializer_list<int> fds = {}) { send(data, fds.begin(), fds.size()); }
  void send(std::string_view data, const std::vector<int>& fds) { send(data, fds.data(), fds.size()); }
  /// Waits for one frame; nullopt = end-of-file (the peer has died or closed).
  std::optional<Frame> receive();
  /// As receive(); throws SysError(ETIMEDOUT) when nothing came in time.
  std::optional<Frame> receive_within(int milliseconds);

  [[nodiscard]] int fd() const noexcept { return socket_.get(); }
  [[nodiscard]] bool valid() const noexcept { return socket_.valid(); }
  [[nodiscard]] Fd release() noexcept { return std::move(socket_); }
  void close() noexcept { socket_.reset(); }

 private:
  void send(std::string_view data, const int* fds, size_t count);
  Fd socket_;
};

/// Sends one descriptor with `data` over any connected unix socket (a console socket, a runtime's notify socket).
void send_fd(int socket, std::string_view data, int fd);

}  // namespace kelp::sys
