#include "runtime/terminal.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "sys/clone.h"
#include "sys/mount_api.h"
#include "sys/pty.h"
#include "sys/safe_path.h"
#include "sys/signals.h"

namespace kelp::runtime {
namespace {

void pass_on(const sys::SignalFd& signals, int pidfd, int master) {
  while (const std::optional<int> sig = signals.next()) {
    if (*sig == SIGWINCH && master >= 0) {
      if (const auto size = sys::window_size(STDIN_FILENO)) sys::set_window_size(master, *size);
      continue;
    }
    try {
      sys::pidfd_send_signal(pidfd, *sig);
    } catch (const SysError&) {  // it has just ended
    }
  }
}

/// One read, written whole. false at the end of the source.
bool copy_some(int from, int to) {
  char buffer[16384];
  const ssize_t size = ::read(from, buffer, sizeof buffer);
  if (size <= 0) return size < 0 && (errno == EINTR || errno == EAGAIN);
  for (ssize_t done = 0; done < size;) {
    const ssize_t n = ::write(to, buffer + done, static_cast<size_t>(size - done));
    if (n < 0 && errno != EINTR && errno != EAGAIN) return false;
    if (n > 0) done += n;
  }
  return true;
}

}  // namespace

// SIGCHLD, stop and fault signals are our own.
std::vector<int> forwarded_signals() {
  std::vector<int> all = {SIGHUP,  SIGINT,    SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM,
                          SIGCONT, SIGVTALRM, SIGPROF, SIGIO,   SIGPWR,  SIGWINCH};
  for (int sig = SIGRTMIN; sig <= SIGRTMAX; ++sig) all.push_back(sig);
  return all;
}

Fd connect_socket(const char* what, const std::string& path) {
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) throw_errno("make a socket");
  // sun_path holds 107 bytes; a longer path is reached through a descriptor of its directory.
  const size_t slash = path.rfind('/');
  const std::string dir_path = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Fd dir(::open(dir_path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!dir) throw_errno("{} {}", what, path);
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  const std::string reach =
      path.size() < sizeof(sockaddr_un::sun_path) ? path : fmt::format("/proc/self/fd/{}/{}", dir.get(), name);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (reach.size() >= sizeof address.sun_path) throw_error("{} {}: the name is too long", what, path);
  std::memcpy(address.sun_path, reach.c_str(), reach.size());
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
    throw_errno("connect to the {} {}", what, path);
  return socket;
}

Terminal open_terminal(int root, const std::optional<spec::Box>& size) {
  Terminal terminal;
  terminal.master = sys::open_in_root(root, "/dev/pts/ptmx", O_RDWR | O_NOCTTY);
  // Without a devpts of its own the image decides what lies there.
  struct statfs fs {};
  if (::fstatfs(terminal.master.get(), &fs) < 0) throw_errno("look at /dev/pts/ptmx");
  if (fs.f_type != DEVPTS_SUPER_MAGIC)
    throw_error("/dev/pts/ptmx does not belong to a devpts: a terminal needs one mounted on /dev/pts");
  if (::unlockpt(terminal.master.get()) < 0) throw_errno("unlock the terminal");
  terminal.slave = Fd(::ioctl(terminal.master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!terminal.slave) throw_errno("open the terminal's other end");
  if (size)
    sys::set_window_size(terminal.master.get(),
                         {static_cast<unsigned short>(size->height), static_cast<unsigned short>(size->width)});
  return terminal;
}

void bind_console(int root, int slave) {
  const Fd dev = sys::mkdirs_in_root(root, "/dev", 0755);
  Fd place(::openat(dev.get(), "console", O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0620));
  if (!place) {
    if (errno != EEXIST) throw_errno("create /dev/console");
    place = Fd(::openat(dev.get(), "console", O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!place) throw_errno("open /dev/console");
  }
  sys::move_mount(sys::open_tree_clone(slave, "", false), place.get());
}

void take_terminal(int slave, uid_t uid) {
  if (::ioctl(slave, TIOCSCTTY, 0) < 0) throw_errno("make the terminal the controlling one");
  // Best effort, as a group for terminals may not be mapped here.
  if (uid != 0 && ::fchown(slave, uid, static_cast<gid_t>(-1)) < 0 && errno != EPERM && errno != EINVAL)
    throw_errno("give the terminal to uid {}", uid);
  for (int fd = 0; fd < 3; ++fd)
    if (::dup2(slave, fd) < 0) throw_errno("make the terminal stdio");
}

void send_terminal(Fd socket, Fd master) { sys::send_fd(socket.get(), "/dev/ptmx", master.get()); }

Fd receive_terminal(sys::Link& console, const std::optional<spec::Box>& size) {
  auto frame = console.receive();
  if (!frame || frame->fds.empty()) throw_error("the terminal has not arrived");
  Fd master = std::move(frame->fds[0]);
  if (size) return master;
  if (const auto own = sys::window_size(STDIN_FILENO)) sys::set_window_size(master.get(), *own);
  return master;
}

void relay_terminal(int master, int pidfd) {
  const std::vector<int> forwarded = forwarded_signals();
  const sys::SignalMask mask(forwarded);
  const sys::SignalFd signals(forwarded);
  const sys::RawMode raw(STDIN_FILENO);
  pollfd polls[4] = {{STDIN_FILENO, POLLIN, 0}, {master, POLLIN, 0}, {pidfd, POLLIN, 0}, {signals.fd(), POLLIN, 0}};
  for (;;) {
    if (::poll(polls, 4, -1) < 0 && errno != EINTR) throw_errno("wait for the terminal");
    if (polls[3].revents != 0) pass_on(signals, pidfd, master);
    // The master answers EIO when the last slave is closed: then only the exit is waited for.
    if (polls[1].revents != 0 && !copy_some(master, STDOUT_FILENO)) polls[1].fd = -1;
    if (polls[0].revents != 0 && !copy_some(STDIN_FILENO, master)) {
      const char end = 4;  // ^D: the end of our stdin is the end of its
      (void)!::write(master, &end, 1);
      polls[0].fd = -1;
    }
    if (polls[2].revents != 0) {
      pollfd rest{master, POLLIN, 0};
      while (polls[1].fd >= 0 && ::poll(&rest, 1, 0) > 0 && (rest.revents & POLLIN) != 0)
        if (!copy_some(master, STDOUT_FILENO)) break;
      return;
    }
  }
}

void wait_passing_signals(int pidfd) {
  const std::vector<int> forwarded = forwarded_signals();
  const sys::SignalMask mask(forwarded);
  const sys::SignalFd signals(forwarded);
  pollfd polls[2] = {{pidfd, POLLIN, 0}, {signals.fd(), POLLIN, 0}};
  for (;;) {
    if (::poll(polls, 2, -1) < 0 && errno != EINTR) throw_errno("wait for the container");
    if (polls[1].revents != 0) pass_on(signals, pidfd, -1);
    if (polls[0].revents != 0) return;
  }
}

}  // namespace kelp::runtime
