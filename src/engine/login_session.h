#pragma once

#include <string>

namespace kelp::engine {

/// What logind does with this user's processes; all of it is read from files, in microseconds.
struct LoginSession {
  bool managed = false;          ///< logind knows the user: he has a session, or lingers
  bool lingers = false;          ///< his manager outlives his logout
  bool kills_processes = false;  ///< KillUserProcesses=yes: also those outside of his manager
};
LoginSession login_session();

/// true when a process in this control group ("/user.slice/…" or a path in the file system) is ended at the user's
/// logout; "" = unknown, as in our own.
bool ends_at_logout(const std::string& group);

}  // namespace kelp::engine
