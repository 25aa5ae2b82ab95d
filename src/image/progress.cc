#include "image/progress.h"

#include <unistd.h>

#include <cerrno>

#include <fmt/format.h>

#include "base/log.h"

namespace kelp::image {

void Progress::bytes(std::string_view id, std::uint64_t current, std::uint64_t total) {
  if (fd_ < 0) return;
  if (current != total) {
    const auto now = std::chrono::steady_clock::now();
    const std::scoped_lock lock(mutex_);
    const auto [it, first] = last_.try_emplace(std::string(id), now);
    if (!first && now - it->second < std::chrono::milliseconds(100)) return;
    it->second = now;
  }
  send("bytes", id, current, total, "");
}

void Progress::send(std::string_view event, std::string_view id, std::uint64_t current, std::uint64_t total,
                    std::string_view text) {
  if (fd_ < 0) return;
  const std::string line = fmt::format(R"({{"v":1,"event":"{}","id":{},"current":{},"total":{},"text":{}}})"
                                       "\n",
                                       event, log::json_quote(id), current, total, log::json_quote(text));
  const std::scoped_lock lock(mutex_);
  std::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t written = ::write(fd_, rest.data(), rest.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      fd_ = -1;  // nobody reads any more; the transfer goes on
      return;
    }
    rest.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace kelp::image
