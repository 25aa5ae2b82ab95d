#include "engine/export.h"

#include <fcntl.h>
#include <unistd.h>

#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "base/owned.h"
#include "base/text.h"
#include "engine/context.h"
#include "engine/session.h"
#include "engine/tar_writer.h"
#include "sys/mount_api.h"

namespace kelp::engine {
namespace {

/// The root file system of a running container as it is below /proc, /sys, /dev and volumes. nullopt: the host refuses
/// the new mount calls.
std::optional<sys::MountFd> without_mounts(int rootfd) {
  try {
    return sys::open_tree_clone(rootfd, "", false);
  } catch (const SysError& error) {
    log::debug("look below the mounts: {}", error.message());
    return std::nullopt;
  }
}

}  // namespace

void export_container(Context& context, const store::ContainerRecord& record, const std::string& output) {
  Fd file;
  if (!output.empty()) {
    file = Fd(::open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    if (!file.valid()) throw_errno("open {}", quoted(output));
  }
  const int fd = file.valid() ? file.get() : STDOUT_FILENO;
  in_container(context, record, [fd](int rootfd) {
    TarWriter writer(fd);
    if (const auto bare = without_mounts(rootfd))
      writer.add_contents(bare->get(), "", false);
    else
      writer.add_contents(rootfd, "", true);
    writer.finish();
  });
}

}  // namespace kelp::engine
