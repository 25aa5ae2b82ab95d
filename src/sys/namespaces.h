#pragma once

#include <sys/types.h>

#include <optional>
#include <span>
#include <string_view>

#include "base/owned.h"

namespace kelp::sys {

/// One kind of namespace: its name in the runtime spec, in /proc/PID/ns, and its clone flag.
struct NamespaceKind {
  const char* spec_name;  ///< "user", "network", "mount", …
  const char* proc_name;  ///< "user", "net", "mnt", …
  int flag;               ///< CLONE_NEWUSER…
};

/// All eight, user first: the order in which they must be joined.
std::span<const NamespaceKind> namespace_kinds() noexcept;
/// By either name; nullopt for an unknown one.
std::optional<NamespaceKind> namespace_kind(std::string_view name) noexcept;

/// Descriptor of a namespace of a process (0 = our own); name as in /proc/PID/ns. Pins the namespace.
/// throws  SysError(ENOENT) process gone or kind not in this kernel, EACCES no right to look
Fd open_ns(pid_t pid, const char* proc_name);
/// setns(2): `fd` is a namespace (flags one CLONE_NEW* or 0) or a pidfd (flags a set of them, joined as one).
/// After joining a pid namespace only children are in it.
void join(int fd, int flags);
/// unshare(2).
void unshare(int flags);
/// Makes the whole mount tree a slave: host unmounts still arrive, ours do not leave. (A private tree would pin
/// the host's file systems.)
void make_mounts_slave();

}  // namespace kelp::sys
