#include "runtime/devices.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "sys/mount_api.h"
#include "sys/safe_path.h"

namespace kelp::runtime {
namespace {

struct DefaultDevice {
  const char* name;
  unsigned major, minor;
};
constexpr DefaultDevice kDefaults[] = {{"null", 1, 3},   {"zero", 1, 5},    {"full", 1, 7},
                                       {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};

struct DefaultLink {
  const char* name;
  const char* target;
};
constexpr DefaultLink kLinks[] = {{"fd", "/proc/self/fd"},
                                  {"stdin", "/proc/self/fd/0"},
                                  {"stdout", "/proc/self/fd/1"},
                                  {"stderr", "/proc/self/fd/2"}};

mode_t type_bits(char type) {
  switch (type) {
    case 'b':
      return S_IFBLK;
    case 'p':
      return S_IFIFO;
    default:
      return S_IFCHR;  // 'c', and 'u' for unbuffered
  }
}

/// Binds the host's node over an empty file: all that a user namespace can do.
void bind_node(int dir, const char* name, const std::string& host_path, mode_t type, dev_t number) {
  sys::MountFd node = sys::open_tree_clone(AT_FDCWD, host_path.c_str(), false);
  struct stat info {};
  if (::fstat(node.get(), &info) < 0) throw_errno("look at {}", host_path);
  if ((info.st_mode & S_IFMT) != type || info.st_rdev != number)
    throw_error("the host's {} is not {}:{}, and a user namespace cannot make device nodes", host_path, major(number),
                minor(number));
  Fd place(::openat(dir, name, O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666));
  if (!place) {
    if (errno != EEXIST) throw_errno("create /dev/{}", name);
    place = Fd(::openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!place) throw_errno("open /dev/{}", name);
  }
  sys::move_mount(node, place.get());
}

/// true once mknod was refused: it will be for the others too.
bool g_no_mknod = false;

void make_node(int dir, const char* name, const std::string& host_path, mode_t type, unsigned mode, dev_t number,
               uid_t uid, gid_t gid) {
  if (!g_no_mknod || type == S_IFIFO) {
    if (::mknodat(dir, name, type | mode, number) == 0) {
      if ((uid != 0 || gid != 0) && ::fchownat(dir, name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
        throw_errno("change the owner of {}", host_path);
      return;
    }
    if (errno == EEXIST) {
      struct stat info {};
      if (::fstatat(dir, name, &info, AT_SYMLINK_NOFOLLOW) == 0 && (info.st_mode & S_IFMT) == type &&
          info.st_rdev == number)
        return;
    } else if (errno != EPERM) {
      throw_errno("make the node {}", host_path);
    }
    g_no_mknod = true;
  }
  bind_node(dir, name, host_path, type, number);
}

void make_default_devices(int root) {
  const Fd dev = sys::mkdirs_in_root(root, "/dev", 0755);
  for (const DefaultDevice& device : kDefaults)
    make_node(dev.get(), device.name, std::string("/dev/") + device.name, S_IFCHR, 0666,
              makedev(device.major, device.minor), 0, 0);
}

void make_default_links(int root) {
  const Fd dev = sys::mkdirs_in_root(root, "/dev", 0755);
  for (const DefaultLink& link : kLinks)
    if (::symlinkat(link.target, dev.get(), link.name) < 0 && errno != EEXIST)
      throw_errno("make the link /dev/{}", link.name);
  if (::symlinkat("/proc/kcore", dev.get(), "core") < 0 && errno != EEXIST) throw_errno("make the link /dev/core");
  // /dev/ptmx must be the one of the container's own devpts.
  if (::unlinkat(dev.get(), "ptmx", 0) < 0 && errno != ENOENT) throw_errno("replace /dev/ptmx");
  if (::symlinkat("pts/ptmx", dev.get(), "ptmx") < 0) throw_errno("make the link /dev/ptmx");
}

}  // namespace

void make_devices(int root, const std::vector<spec::Device>& devices, bool own_dev) {
  if (own_dev) step("default devices", [&] { make_default_devices(root); });
  for (const spec::Device& device : devices) {
    const std::string path = sys::clean_path("/" + device.path);
    if (own_dev && path == "/dev/ptmx") continue;  // always a link into the container's own devpts
    try {
      const size_t slash = path.rfind('/');
      const Fd dir = sys::mkdirs_in_root(root, slash == 0 ? "/" : path.substr(0, slash), 0755);
      const dev_t number = device.type == 'p'
                               ? dev_t{0}
                               : makedev(static_cast<unsigned>(device.major), static_cast<unsigned>(device.minor));
      make_node(dir.get(), path.c_str() + slash + 1, path, type_bits(device.type),
                device.file_mode.value_or(0666) & 07777, number, device.uid.value_or(0), device.gid.value_or(0));
    } catch (Error& error) {
      error.add_context("device " + path);
      throw;
    }
  }
  if (own_dev) make_default_links(root);
}

std::vector<std::string> device_paths(const std::vector<spec::Device>& devices, bool own_dev) {
  std::vector<std::string> paths;
  if (own_dev)
    for (const DefaultDevice& device : kDefaults) paths.push_back(std::string("/dev/") + device.name);
  for (const spec::Device& device : devices) paths.push_back(sys::clean_path("/" + device.path));
  return paths;
}

}  // namespace kelp::runtime
