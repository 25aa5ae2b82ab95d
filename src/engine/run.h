#pragma once

#include <functional>
#include <optional>
#include <string>

#include "store/container_record.h"
#include "sys/lock.h"

namespace kelp::engine {

struct Context;
class StartTrace;

/// attach_*     which streams are connected while in the foreground
/// foreground   wait for the end of the container; otherwise return once it has been started
/// sig_proxy    pass signals on to the container (ignored with a terminal)
/// detach_keys  "ctrl-p,ctrl-q"; "" = none
/// die_with_parent  the container is killed when this process ends; not in the foreground: when its parent ends
struct StartOptions {
  bool attach_stdin = false, attach_stdout = false, attach_stderr = false;
  bool foreground = false;
  bool sig_proxy = true;
  bool die_with_parent = false;
  bool init_only = false;     ///< set up only: the command waits until the container is started
  unsigned preserve_fds = 0;  ///< descriptors of the caller, from 3 on, that the container gets
  std::string detach_keys = "ctrl-p,ctrl-q";
  StartTrace* trace = nullptr;        ///< kelp-oci's steps are wanted as well
  std::string* last_words = nullptr;  ///< the end of the output is kept there, in the foreground
  std::function<void()> started;      ///< called when the container runs, before its output
};

/// detached   true: not in the foreground, or the user typed the detach keys
/// exit_code  of the container, when it was waited for
struct StartResult {
  bool detached = false;
  int exit_code = 0;
};

/// Starts a created, initialized or exited container: session, monitor, runtime, network, and streams.
///
/// held    its lock, where the caller has had it since it made the container
/// throws  Error with exit code 126 / 127 when the command cannot be executed / was not found, 125 otherwise; nothing
///         of the attempt is left then except the record itself (and not even that with --rm)
StartResult start_container(Context& context, const store::ContainerRecord& record, const StartOptions& options,
                            std::optional<sys::FileLock> held = std::nullopt);

}  // namespace kelp::engine
