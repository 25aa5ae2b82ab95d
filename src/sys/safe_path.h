#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "base/owned.h"

namespace kelp::sys {

/// Opens `path` as a process with its root at `rootfd` would: absolute links and ".." stay inside, magic links of
/// /proc are refused. Below a kernel without openat2 (ENOSYS, or EPERM of an old seccomp profile) a walk does the same.
///
/// flags   of open(2); O_CLOEXEC is added
/// throws  SysError naming the path; ENOENT, ENOTDIR, ELOOP as open(2)
Fd open_in_root(int rootfd, std::string_view path, int flags, unsigned mode = 0);

/// The same, but -1 with errno instead of an exception: for look-ups where "not there" is an answer.
Fd try_open_in_root(int rootfd, std::string_view path, int flags, unsigned mode = 0) noexcept;

/// Opens a relative path that must not leave `dirfd` at any step; links are not followed at all.
/// throws  SysError, EXDEV or ELOOP where the path tries to
Fd open_beneath(int dirfd, std::string_view path, int flags, unsigned mode = 0);

/// mkdir -p inside a root; returns the last directory opened O_DIRECTORY. New directories get `mode` and, when not -1,
/// owner and group as seen by the caller.
Fd mkdirs_in_root(int rootfd, std::string_view path, unsigned mode, uid_t uid = static_cast<uid_t>(-1),
                  gid_t gid = static_cast<gid_t>(-1));

/// mkdir -p on the host.
void mkdirs(const std::string& path, unsigned mode);

/// "/a//b/../c/" as "/a/c": by text alone, never above "/". Relative paths stay relative ("." when empty).
std::string clean_path(std::string_view path);

namespace detail {
/// The walk that open_in_root() falls back to; public for its tests.
Fd walk_in_root(int rootfd, std::string_view path, int flags, unsigned mode) noexcept;
}  // namespace detail

}  // namespace kelp::sys
