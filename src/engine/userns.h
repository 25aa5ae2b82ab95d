#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/owned.h"
#include "sys/clone.h"
#include "sys/idmap.h"

/// S: the user namespace that all containers of the calling user share. Caller → 0, subordinate range → 1…; a map of
/// one id where there is no range. It lives as long as a process in it, that is: as long as a monitor.
///
///     run/userns.json     pid, start time and boot id of a process in S: the last one that a look has found
///     run/userns.lock     held from the second look to the publication of a new S, by whoever makes one
///
/// It is found without a lock: by userns.json, else through any monitor's state.json. A namespace is pinned by its
/// descriptor before it is checked; its inode proves nothing (numbers are reused), so the checks are: owner, parent,
/// both maps as we would make them now, and that the process is the one that was recorded.
namespace kelp::engine {

struct Context;

/// The maps that S has, or will have when it must be made. Read once per process.
const sys::IdMaps& wanted_maps(Context& context);

/// The living S, or nullopt.
std::optional<Fd> find_userns(Context& context);
/// User namespace of the monitor with this pid and start time, without a look at its maps; nullopt when it has gone.
std::optional<Fd> userns_of_process(int pid, std::uint64_t start);

struct UsernsClone {
  std::uint64_t flags = 0;     ///< further CLONE_NEW*
  int cgroup_fd = -1;          ///< CLONE_INTO_CGROUP
  bool publish = false;        ///< a new S is to be found by others: the child is going to be a monitor
  const Fd* userns = nullptr;  ///< join this one instead of looking
};
/// Clones a child that runs `body` as uid 0 of S. Where there is no S the child gets a new one; with `publish` under
/// the lock, so that many starters at once end in one S.
sys::Child clone_in_userns(Context& context, const UsernsClone& options, const std::function<int()>& body);

/// A new S on its way while a start is prepared: where there is none, a child that only waits gets the maps, and the
/// first session joins it. Nothing happens when S lives, or somebody else is making one; what cannot be made is left to
/// clone_in_userns(), which then says why.
class UpcomingUserns {
 public:
  /// held_lock  the descriptor of a lock that the waiting child must not share; -1 = none
  explicit UpcomingUserns(Context& context, int held_lock = -1);
  ~UpcomingUserns();
  UpcomingUserns(const UpcomingUserns&) = delete;
  UpcomingUserns& operator=(const UpcomingUserns&) = delete;

  /// Waits for the maps and publishes the waiting child as a holder of S. nullptr: there is nothing to join here.
  /// throws  Error when the helpers refuse
  const Fd* join();
  /// `pid` (a monitor) lives in S now: it is published, and the waiting child ends.
  void hand_over(pid_t pid);

 private:
  struct Making;
  Context& context_;
  std::unique_ptr<Making> making_;
};

}  // namespace kelp::engine
