#include "runtime/start_gate.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "runtime/seccomp.h"

namespace kelp::runtime {
namespace {

sockaddr_un gate_address(int state_dir) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = fmt::format("/proc/self/fd/{}/gate", state_dir);
  std::memcpy(address.sun_path, path.c_str(), path.size());
  return address;
}

Fd gate_socket() {
  Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!socket) throw_errno("make a socket");
  return socket;
}

}  // namespace

Fd make_gate(int state_dir) {
  Fd listener = gate_socket();
  const sockaddr_un address = gate_address(state_dir);
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0 ||
      ::listen(listener.get(), 1) < 0)
    throw_errno("make the start gate");
  return listener;
}

sys::Link wait_at_gate(Fd listener, int watch_pidfd) {
  pollfd polls[2] = {{listener.get(), POLLIN, 0}, {watch_pidfd, POLLIN, 0}};
  for (;;) {
    if (::poll(polls, 2, -1) < 0 && errno != EINTR) throw_errno("wait for start");
    if (polls[1].revents != 0) ::_exit(kExitFailure);
    if ((polls[0].revents & POLLIN) == 0) continue;
    sys::Link link(Fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)));
    if (!link.valid()) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      throw_errno("wait for start");
    }
    // A `start` that dies before it has said so leaves us waiting for the next one.
    const auto frame = link.receive();
    if (frame && Msg{frame->data[0]} == Msg::go) return link;
  }
}

ParentLink open_gate(int state_dir) {
  Fd socket = gate_socket();
  const sockaddr_un address = gate_address(state_dir);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) {
    if (errno == ENOENT || errno == ECONNREFUSED) throw_error("the container does not wait to be started");
    throw_errno("connect to the start gate");
  }
  return ParentLink(sys::Link(std::move(socket)));
}

void serve_until_exec(ParentLink& link, const spec::RuntimeState& state, const spec::Seccomp* seccomp) {
  bool executing = false;
  while (std::optional<ParentLink::Event> event = link.next()) {
    if (event->msg == Msg::executing) executing = true;
    if (event->msg == Msg::listener && !event->fds.empty() && seccomp != nullptr) {
      send_seccomp_listener(seccomp->listener_path, event->fds[0].get(),
                            spec::print_container_process_state(state, state.pid, seccomp->listener_metadata));
      link.go();
    }
  }
  if (!executing) throw_error("{}", kFirstProcessDied);
}

}  // namespace kelp::runtime
