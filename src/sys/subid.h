#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "sys/idmap.h"

namespace kelp::sys {

/// Where the ranges and programs come from; the defaults are the system's, tests give their own.
struct SubidSources {
  std::string subuid_file = "/etc/subuid";
  std::string subgid_file = "/etc/subgid";
};

/// Ranges of `user` (matched by name, or by its number `uid`) in the text of /etc/subuid or /etc/subgid: in file order,
/// `inside` is 0 throughout. Broken lines, empty ranges and lines of others are skipped.
/// source: subuid(5)
IdRanges parse_subids(std::string_view text, std::string_view user, std::uint32_t uid);

/// The caller's ranges; empty when the file or a line for him is missing. Outside ids only (inside = 0).
IdRanges own_subuids(const SubidSources& sources = {});
IdRanges own_subgids(const SubidSources& sources = {});

/// newuidmap / newgidmap in PATH, "" when absent.
const std::string& newuidmap_path();
const std::string& newgidmap_path();
/// true when the program can do its work: set-uid root, or a file capability (`security.capability`) is on it.
bool helper_is_privileged(const std::string& path);

/// Why the caller gets one id only, or "" when the full map is his: one line for the warning, with the mend.
struct SingleIdReason {
  std::string text;  ///< "no subordinate ids for alice in /etc/subuid"
  std::string hint;  ///< "sudo usermod --add-subuids 100000-165535 …"
};

/// Maps for the caller's user namespace S: {0 → caller, 1} and his subordinate ranges from 1 on. Single id
/// (helpers = false) when he has none, the helpers are missing or unprivileged, or no_new_privs is set; *reason then
/// says why. The caller being root (of any namespace) without subordinate ranges also gets a single id: kelp never
/// hands host ids to containers.
/// @param reason may be null
IdMaps default_maps(SingleIdReason* reason = nullptr, const SubidSources& sources = {});

struct PasswdEntry {
  std::string name, home;
};

/// The caller's line of /etc/passwd, by uid; nullopt: there is none (a directory service has him). Read once.
const std::optional<PasswdEntry>& own_passwd_entry();

/// Login name of the caller by uid (getpwuid without NSS modules: /etc/passwd, then $USER when it is his); "" if
/// unknown.
std::string own_user_name();

}  // namespace kelp::sys
