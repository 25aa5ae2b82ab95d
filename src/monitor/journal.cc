#include "monitor/journal.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>

#include "base/error.h"
#include "base/log.h"

namespace kelp::monitor {
namespace {

/// journald reads in batches: a moment may be needed, but the container must not hang for it.
constexpr int kPatience = 1000;

iovec part(std::string_view text) { return {const_cast<char*>(text.data()), text.size()}; }

}  // namespace

Journal::Journal(const std::string& socket, std::string fields) : fields_(std::move(fields)) {
  socket_ = Fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket_) throw_errno("make a socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket.size() >= sizeof address.sun_path) throw_error("the journal's socket {}: the name is too long", socket);
  socket.copy(address.sun_path, socket.size());
  if (::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
    throw_errno("connect to the journal at {}", socket);
}

void Journal::write(unsigned stream, std::string_view bytes) {
  while (!bytes.empty()) {
    const auto newline = bytes.find('\n');
    const bool whole = newline != std::string_view::npos;
    send(stream, bytes.substr(0, newline), !whole);
    bytes.remove_prefix(whole ? newline + 1 : bytes.size());
  }
}

void Journal::send(unsigned stream, std::string_view line, bool partial) {
  if (!socket_) return;
  // A length in front, since the line may hold anything.
  std::array<char, sizeof(std::uint64_t)> length;
  for (size_t i = 0; i < length.size(); ++i) length[i] = static_cast<char>(line.size() >> (8 * i) & 0xff);
  std::array<iovec, 6> parts{part(fields_),
                             part(stream == 2 ? "PRIORITY=3\n" : "PRIORITY=6\n"),
                             part(partial ? "CONTAINER_PARTIAL_MESSAGE=true\nMESSAGE\n" : "MESSAGE\n"),
                             part({length.data(), length.size()}),
                             part(line),
                             part("\n")};
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  for (;;) {
    if (::sendmsg(socket_.get(), &message, MSG_NOSIGNAL) >= 0) return;
    if (errno == EINTR) continue;
    pollfd ready{socket_.get(), POLLOUT, 0};
    if (errno == EAGAIN && ::poll(&ready, 1, kPatience) > 0) continue;
    if (!warned_) log::warn("the journal takes no output: {}", errno_text(errno));
    warned_ = true;
    return;
  }
}

}  // namespace kelp::monitor
