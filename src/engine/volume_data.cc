#include "engine/volume_data.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/error.h"
#include "base/text.h"
#include "engine/context.h"
#include "engine/image_program.h"
#include "engine/images.h"
#include "engine/session.h"
#include "engine/tar_writer.h"
#include "store/layers.h"
#include "sys/clone.h"
#include "sys/link.h"

namespace kelp::engine {
namespace {

/// A tmpfs is made for each container that uses it and ends with it.
void refuse_tmpfs(const store::VolumeRecord& volume) {
  const auto type = volume.options.find("type");
  if (type != volume.options.end() && type->second == "tmpfs")
    throw_error("volume {} is a tmpfs: it has no files of its own", volume.name);
}

}  // namespace

void export_volume(Context& context, const store::VolumeRecord& volume, const std::string& output) {
  refuse_tmpfs(volume);
  Fd file;
  if (!output.empty()) {
    file = Fd(::open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    if (!file.valid()) throw_errno("open {}", quoted(output));
  }
  const int fd = file.valid() ? file.get() : STDOUT_FILENO;
  in_userns(context, [&] {
    const Fd data(::open(volume.mountpoint.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!data) throw_errno("open volume {}", volume.name);
    TarWriter writer(fd);
    writer.add_contents(data.get(), "", true);
    writer.finish();
  });
}

void import_volume(Context& context, store::VolumeRecord volume, int archive_fd) {
  refuse_tmpfs(volume);
  // Opened inside S, where a directory of another id can be opened; used by kelp-image, which is there too.
  auto [ours, theirs] = sys::Link::pair();
  sys::Child child = sys::clone_child(0, [&, &ours = ours, &theirs = theirs]() -> int {
    ours.close();
    in_userns(context, [&] {
      const Fd data(::open(volume.mountpoint.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      if (!data) throw_errno("open volume {}", volume.name);
      theirs.send("data", {data.get()});
    });
    return 0;
  });
  theirs.close();
  const auto frame = ours.receive();
  child.wait();
  if (!frame || frame->fds.empty()) throw_error("volume {} cannot be opened", volume.name);
  const store::IdMapping map = default_map(context);
  unpack_archive(context, {.directory_fd = frame->fds.front().get(), .map = map}, archive_fd);
  if (volume.needs_copy_up) {
    volume.needs_copy_up = false;  // it has its contents now
    store::update_volume(context.layout, volume);
  }
}

}  // namespace kelp::engine
