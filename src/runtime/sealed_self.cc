#include "runtime/sealed_self.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"
#include "base/owned.h"
#include "sys/mount_api.h"

namespace kelp::runtime {
namespace {

constexpr unsigned kSeals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
/// How owners that have no id in this user namespace are shown. A program does not belong to "nobody" otherwise.
constexpr uid_t kUnmapped = 65534;

bool out_of_reach(int exe) {
  struct statvfs fs {};
  if (::fstatvfs(exe, &fs) == 0 && (fs.f_flag & ST_RDONLY) != 0) return true;
  const int seals = ::fcntl(exe, F_GET_SEALS);
  if (seals >= 0 && (static_cast<unsigned>(seals) & F_SEAL_WRITE) != 0) return true;
  struct stat info {};
  if (::fstat(exe, &info) < 0 || (info.st_mode & (S_IWGRP | S_IWOTH)) != 0) return false;
  const bool unmapped = info.st_uid == kUnmapped && info.st_gid == kUnmapped;
  // An ordinary user's containers hold his id and his subordinate ones, never the host's root.
  const bool host_roots = info.st_uid == 0 && ::geteuid() != 0;
  return unmapped || host_roots;
}

void exec_from(int fd, char** argv) { ::execveat(fd, "", argv, environ, AT_EMPTY_PATH); }

void exec_from_readonly_mount(char** argv) {
  try {
    const sys::MountFd clone = sys::open_tree_clone(AT_FDCWD, "/proc/self/exe", false);
    sys::set_attrs(clone.get(), "", MOUNT_ATTR_RDONLY, 0, false);
    exec_from(clone.get(), argv);
  } catch (const SysError&) {  // not privileged here: the copy it is
  }
}

/// A memory file with our program; false: the kernel would not seal it, since somebody (who reclaims or moves pages)
/// holds one of its pages. It has waited for that itself.
bool sealed_copy(int exe, Fd& copy) {
  copy = Fd(::memfd_create("kelp-oci", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!copy) throw_errno("make a memory file");
  struct stat info {};
  if (::fstat(exe, &info) < 0) throw_errno("look at our own program");
  off_t offset = 0;
  while (offset < info.st_size)
    if (::sendfile(copy.get(), exe, &offset, static_cast<size_t>(info.st_size - offset)) <= 0 && errno != EINTR)
      throw_errno("copy our own program");
  if (::fchmod(copy.get(), 0500) < 0) throw_errno("change mode of the copy of our own program");
  if (::fcntl(copy.get(), F_ADD_SEALS, kSeals) == 0) return true;
  if (errno != EBUSY) throw_errno("seal the copy of our own program");
  return false;
}

void exec_from_copy(int exe, char** argv) {
  constexpr int kTries = 50;  // another copy has other pages
  Fd copy;
  for (int tries = 1; !sealed_copy(exe, copy); ++tries)
    if (tries == kTries) throw SysError("seal the copy of our own program", EBUSY);
  exec_from(copy.get(), argv);
  throw_errno("run from a sealed copy");
}

}  // namespace

void seal_self(char** argv) {
  const Fd exe(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  if (!exe) throw_errno("open our own program");
  if (out_of_reach(exe.get())) return;
  exec_from_readonly_mount(argv);
  exec_from_copy(exe.get(), argv);
}

}  // namespace kelp::runtime
