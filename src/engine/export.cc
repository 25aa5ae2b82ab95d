#include "engine/export.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/error.h"
#include "base/owned.h"
#include "base/text.h"
#include "engine/context.h"
#include "engine/session.h"
#include "engine/tar_writer.h"

namespace kelp::engine {

void export_container(Context& context, const store::ContainerRecord& record, const std::string& output) {
  Fd file;
  if (!output.empty()) {
    file = Fd(::open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    if (!file.valid()) throw_errno("open {}", quoted(output));
  }
  const int fd = file.valid() ? file.get() : STDOUT_FILENO;
  in_container(context, record, [fd](int rootfd) {
    TarWriter writer(fd);
    writer.add_contents(rootfd, "", true);
    writer.finish();
  });
}

}  // namespace kelp::engine
