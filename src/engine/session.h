#pragma once

#include <functional>
#include <string>

#include "base/owned.h"
#include "engine/userns.h"
#include "store/container_record.h"
#include "sys/clone.h"
#include "sys/spawn.h"

namespace kelp::engine {

struct Context;
struct StartPlan;

/// "full", or "single" where S maps one id only: the map key of layers that containers in S use.
std::string userns_map_key(Context& context);

/// Starts a program as uid 0 of S (see userns.h), in the caller's own other namespaces; own_mounts: with a mount
/// namespace of its own (`/` rslave), so that it may mount.
/// throws  SysError with the errno of exec
sys::Child spawn_in_userns(Context& context, const sys::SpawnRequest& request, bool own_mounts = false);

struct RootfsPlan;
/// How the root file system of a container is mounted while it does not run; not for --rootfs.
RootfsPlan stopped_rootfs(Context& context, const store::ContainerRecord& record);

/// Runs `body` in a forked child as uid 0 of S with a mount namespace of its own (`/` rslave), so that it may mount;
/// what it mounts is gone at its end. The child has the caller's descriptors. An Error thrown by body is thrown again
/// here, with its hint and exit code. The second form hands back a text.
void in_userns(Context& context, const std::function<void()>& body);
std::string ask_in_userns(Context& context, const std::function<std::string()>& body);

/// Runs `body` in a forked child that sees the container's root file system as `rootfd` (directory), with all ids as
/// the container has them. Running: ONE setns into init's user and mount namespace. Stopped: a session of its own with
/// the overlay mounted, under the container's exclusive lock; with `volumes` they and what is bound from the host are
/// mounted there, too. Host paths must be opened before the call.
void in_container(Context& context, const store::ContainerRecord& record, const std::function<void(int rootfd)>& body,
                  bool volumes = false);

/// Calls `use` here with the root directory of the container, while a child keeps it as in_container() with volumes
/// does: for programs of the host, which get the descriptor. mounts false: what lies in the image's layers and the
/// container's own only, without anything mounted over it, read-only.
void with_container_root(Context& context, const store::ContainerRecord& record, bool mounts,
                         const std::function<void(int rootfd)>& use);

/// What a session needs besides the start plan.
///
/// link, plan   descriptors that the monitor gets: its connection to kelp, the memory file with its plan
/// lock         the container's lock, which the monitor holds from then on
/// gate         reading end of a pipe and its far end: the monitor is not started before a byte comes; end-of-file
///              ends the session
/// upcoming     S where it is being made, or null
/// new_network  the container gets a network namespace of its own, owned by S: it is made in the session, beside the
///              monitor's and the runtime's start (half a millisecond)
/// passthrough  the monitor keeps our stdin, stdout and stderr for the container
struct SessionRequest {
  const StartPlan* start = nullptr;
  int link = -1, plan = -1, lock = -1;
  const Fd *gate = nullptr, *gate_far = nullptr;
  UpcomingUserns* upcoming = nullptr;
  bool new_network = false;
  bool passthrough = false;
  unsigned preserve_fds = 0;  ///< descriptors from 3 on that the monitor gets for the container
};
/// Clones the session of a container: in S, with a mount namespace, it becomes the monitor, while a child of it makes
/// the root file system and fills the volumes; the monitor waits for that child's answer (monitor/root_answer.h). What
/// goes wrong before there is a monitor is told over the link, as the monitor would (monitor/protocol.h).
sys::Child start_session(Context& context, const SessionRequest& request);

}  // namespace kelp::engine
