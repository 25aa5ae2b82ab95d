#include "image/growing_file.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "image/http.h"

namespace kelp::image {

void GrowingFile::grow_to(std::uint64_t size) {
  const std::scoped_lock lock(mutex_);
  size_ = size;
  changed_.notify_all();
}

void GrowingFile::end() {
  const std::scoped_lock lock(mutex_);
  if (state_ == State::open) state_ = State::ended;
  changed_.notify_all();
}

void GrowingFile::fail() {
  const std::scoped_lock lock(mutex_);
  state_ = State::failed;
  changed_.notify_all();
}

size_t GrowingFile::read(void* buffer, size_t size) {
  std::uint64_t there = 0;
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return position_ < size_ || state_ != State::open; });
    if (state_ == State::failed) throw Cancelled();
    there = size_ - position_;
  }
  if (there == 0) return 0;
  for (;;) {
    const ssize_t got =
        ::pread(fd_, buffer, static_cast<size_t>(std::min<std::uint64_t>(size, there)), static_cast<off_t>(position_));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno("read a download under way");
    if (got == 0) throw_error("a download under way became shorter");
    position_ += static_cast<std::uint64_t>(got);
    return static_cast<size_t>(got);
  }
}

}  // namespace kelp::image
