#include "sys/namespaces.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>

#include <array>

#include "base/error.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

namespace kelp::sys {
namespace {

constexpr std::array<NamespaceKind, 8> kKinds = {{
    {"user", "user", CLONE_NEWUSER},
    {"mount", "mnt", CLONE_NEWNS},
    {"pid", "pid", CLONE_NEWPID},
    {"network", "net", CLONE_NEWNET},
    {"ipc", "ipc", CLONE_NEWIPC},
    {"uts", "uts", CLONE_NEWUTS},
    {"cgroup", "cgroup", CLONE_NEWCGROUP},
    {"time", "time", CLONE_NEWTIME},
}};

}  // namespace

std::span<const NamespaceKind> namespace_kinds() noexcept { return kKinds; }

std::optional<NamespaceKind> namespace_kind(std::string_view name) noexcept {
  for (const NamespaceKind& kind : kKinds)
    if (name == kind.spec_name || name == kind.proc_name) return kind;
  return std::nullopt;
}

Fd open_ns(pid_t pid, const char* proc_name) {
  const std::string path =
      pid == 0 ? fmt::format("/proc/self/ns/{}", proc_name) : fmt::format("/proc/{}/ns/{}", pid, proc_name);
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) throw_errno("open {}", path);
  return fd;
}

void join(int fd, int flags) {
  if (::setns(fd, flags) < 0) throw_errno("join a namespace");
}

void unshare(int flags) {
  if (::unshare(flags) < 0) throw_errno("make new namespaces");
}

void make_mounts_slave() {
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) < 0) throw_errno("make / a slave mount");
}

}  // namespace kelp::sys
