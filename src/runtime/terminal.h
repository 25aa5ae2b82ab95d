#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/owned.h"
#include "spec/runtime_config.h"
#include "sys/link.h"

namespace kelp::runtime {

/// Connects to a socket of the caller's that wants a descriptor (--console-socket, --pidfd-socket); `what` names it in
/// errors. In the parent: it is a host path.
/// throws  SysError naming the path
Fd connect_socket(const char* what, const std::string& path);

/// A terminal of the container's own devpts. The slave is opened through the master, so no path inside is trusted.
struct Terminal {
  Fd master, slave;
};
/// dev  directory /dev of the container, or of the process' root
Terminal open_terminal(int root, const std::optional<spec::Box>& size);
/// Binds the slave over /dev/console below the new root.
void bind_console(int root, int slave);
/// Makes the slave stdin, stdout, stderr and the controlling terminal of this process (a session leader), owned by uid.
void take_terminal(int slave, uid_t uid);
/// Sends the master over the console socket and closes both here.
void send_terminal(Fd socket, Fd master);

/// Copies between our own terminal (put into raw mode) and the master until the process behind pidfd has ended; window
/// size changes are passed on, signals go to the process. For `run` and `exec` in the foreground without a console
/// socket.
void relay_terminal(int master, int pidfd);

/// The master that the new process has sent to our end of its console link, with the size of our own terminal unless
/// `size` (process.consoleSize) says otherwise: before the payload starts, so that it never sees another one.
Fd receive_terminal(sys::Link& console, const std::optional<spec::Box>& size);

/// Signals that a runtime in the foreground passes on. Block them before the clone, so that none gets lost.
std::vector<int> forwarded_signals();
/// Waits for the end of a foreground payload; signals that reach us are passed on to it.
void wait_passing_signals(int pidfd);

}  // namespace kelp::runtime
