#include "sys/link.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace kelp::sys {
namespace {

constexpr size_t kMaxFds = 250;  // SCM_MAX_FD is 253

void send_message(int socket, std::string_view data, const int* fds, size_t count) {
  if (data.empty()) throw_error("send an empty frame");  // would read as end-of-file
  if (count > kMaxFds) throw_error("send {} descriptors in one frame, the limit is {}", count, kMaxFds);
  iovec part{const_cast<char*>(data.data()), data.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))];
  if (count > 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    std::memcpy(CMSG_DATA(header), fds, count * sizeof(int));
  }
  ssize_t sent = 0;
  do {
    sent = ::sendmsg(socket, &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) throw_errno("send to the peer process");
}

}  // namespace

std::pair<Link, Link> Link::pair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) throw_errno("make a socket pair");
  return {Link(Fd(ends[0])), Link(Fd(ends[1]))};
}

void Link::send(std::string_view data, const int* fds, size_t count) { send_message(socket_.get(), data, fds, count); }

std::optional<Link::Frame> Link::receive() {
  ssize_t size = 0;
  do {
    size = ::recv(socket_.get(), nullptr, 0, MSG_PEEK | MSG_TRUNC);
  } while (size < 0 && errno == EINTR);
  // A peer that died with our data unread leaves ECONNRESET: it is gone all the same.
  if (size == 0 || (size < 0 && errno == ECONNRESET)) return std::nullopt;
  if (size < 0) throw_errno("receive from the peer process");

  Frame frame;
  frame.data.resize(static_cast<size_t>(size));
  iovec part{frame.data.data(), frame.data.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t got = 0;
  do {
    got = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0) throw_errno("receive from the peer process");
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
      frame.fds.emplace_back(fd);
    }
  }
  if ((message.msg_flags & MSG_CTRUNC) != 0) throw_error("receive from the peer process: descriptors were lost");
  return frame;
}

std::optional<Link::Frame> Link::receive_within(int milliseconds) {
  pollfd poll_for{socket_.get(), POLLIN, 0};
  int ready = 0;
  do {
    ready = ::poll(&poll_for, 1, milliseconds);
  } while (ready < 0 && errno == EINTR);
  if (ready == 0) throw SysError("receive from the peer process", ETIMEDOUT);
  return receive();
}

void send_fd(int socket, std::string_view data, int fd) { send_message(socket, data, &fd, 1); }

}  // namespace kelp::sys
