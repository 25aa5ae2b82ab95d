#include "monitor/event_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>

#include <fmt/core.h>

#include "base/error.h"
#include "base/log.h"
#include "base/owned.h"
#include "sys/lock.h"

namespace kelp::monitor {
namespace {

/// Of several who find it full at the same time one gets the lock; a late one finds that the name is another file's.
void rotate(const std::string& path, int fd) {
  const auto lock = sys::FileLock::try_exclusive_at(fd);
  if (!lock) return;
  struct stat ours {
  }, named{};
  if (::fstat(fd, &ours) < 0 || ::stat(path.c_str(), &named) < 0 || ours.st_ino != named.st_ino) return;
  if (::rename(path.c_str(), (path + ".1").c_str()) < 0) log::debug("rotate {}: {}", path, errno_text(errno));
}

}  // namespace

std::string event_line(std::string_view status, std::string_view subject, std::string_view extra) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return fmt::format("{{\"schema\":1,\"time\":{},\"Status\":\"{}\"{},{}}}\n",
                     std::chrono::duration_cast<std::chrono::nanoseconds>(now).count(), status, extra, subject);
}

void append_events(const std::string& path, std::string_view lines) noexcept {
  if (path.empty()) return;
  try {
    const Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600));
    if (!file) throw_errno("open {}", path);
    // A part of a line (disk full) is skipped by readers, as is what is glued to it.
    if (::write(file.get(), lines.data(), lines.size()) < 0) throw_errno("write {}", path);
    if (::lseek(file.get(), 0, SEEK_CUR) > kEventLogSize) rotate(path, file.get());
  } catch (const Error& error) {
    log::debug("{}", error.message());
  }
}

}  // namespace kelp::monitor
