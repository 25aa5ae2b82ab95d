#include "monitor/protocol.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/error.h"

namespace kelp::monitor {
namespace {

/// Only as many pages of it are ever touched as the largest frame needs.
alignas(8) char receive_buffer[sizeof(Header) + 2 * kMaxPayload];

sockaddr_un address_at(int dirfd, const char* name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", dirfd, name);
  return address;
}

}  // namespace

Sent send_frame(int socket, Header header, std::string_view payload, const std::vector<int>& fds, bool wait) noexcept {
  iovec parts[2] = {{&header, sizeof header}, {const_cast<char*>(payload.data()), payload.size()}};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = payload.empty() ? 1 : 2;
  if (!fds.empty() && fds.size() <= kMaxFds) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(rights), fds.data(), fds.size() * sizeof(int));
  }
  for (;;) {
    if (::sendmsg(socket, &message, MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT)) >= 0) return Sent::yes;
    if (errno == EINTR) continue;
    return errno == EAGAIN || errno == ENOBUFS ? Sent::would_block : Sent::gone;
  }
}

Received receive_frame(int socket, Frame& frame, bool wait) noexcept {
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))];
  iovec part{receive_buffer, sizeof receive_buffer};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t count = 0;
  do {
    count = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
  } while (count < 0 && errno == EINTR);
  if (count < 0 && errno == EAGAIN) return Received::nothing;
  frame.fds.clear();
  if (count > 0) {
    for (cmsghdr* part_of = CMSG_FIRSTHDR(&message); part_of != nullptr; part_of = CMSG_NXTHDR(&message, part_of)) {
      if (part_of->cmsg_level != SOL_SOCKET || part_of->cmsg_type != SCM_RIGHTS) continue;
      const size_t number = (part_of->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (size_t i = 0; i < number; ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(part_of) + i * sizeof(int), sizeof fd);
        frame.fds.emplace_back(fd);
      }
    }
  }
  if (count < static_cast<ssize_t>(sizeof(Header)) || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
    return Received::gone;
  std::memcpy(&frame.header, receive_buffer, sizeof(Header));
  frame.payload = {receive_buffer + sizeof(Header), static_cast<size_t>(count) - sizeof(Header)};
  return Received::frame;
}

Fd listen_at(int dirfd, const char* name) {
  Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) throw_errno("make a socket");
  const sockaddr_un address = address_at(dirfd, name);
  ::unlinkat(dirfd, name, 0);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
    throw_errno("bind {}", name);
  if (::listen(socket.get(), 128) < 0) throw_errno("listen on {}", name);
  return socket;
}

Fd connect_at(int dirfd, const char* name) noexcept {
  Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!socket) return {};
  const sockaddr_un address = address_at(dirfd, name);
  int result = 0;
  do {
    result = ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  } while (result < 0 && errno == EINTR);
  if (result < 0) {
    const int saved = errno;
    socket.reset();
    errno = saved;
  }
  return socket;
}

}  // namespace kelp::monitor
