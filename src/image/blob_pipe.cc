#include "image/blob_pipe.h"

#include <algorithm>
#include <cstring>

#include "image/http.h"

namespace kelp::image {

void BlobPipe::write(std::span<const std::byte> bytes) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return discard_ || queued_ < capacity_; });
  if (discard_ || bytes.empty()) return;
  queue_.emplace_back(bytes.begin(), bytes.end());
  queued_ += bytes.size();
  changed_.notify_all();
}

void BlobPipe::end() {
  const std::scoped_lock lock(mutex_);
  if (state_ == State::open) state_ = State::ended;
  changed_.notify_all();
}

void BlobPipe::fail() {
  const std::scoped_lock lock(mutex_);
  state_ = State::failed;
  changed_.notify_all();
}

size_t BlobPipe::read(void* buffer, size_t size) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !queue_.empty() || state_ != State::open; });
  if (state_ == State::failed) throw Cancelled();
  size_t given = 0;
  while (given < size && !queue_.empty()) {
    const std::vector<std::byte>& front = queue_.front();
    const size_t part = std::min(size - given, front.size() - front_used_);
    std::memcpy(static_cast<char*>(buffer) + given, front.data() + front_used_, part);
    given += part;
    front_used_ += part;
    queued_ -= part;
    if (front_used_ == front.size()) {
      queue_.pop_front();
      front_used_ = 0;
    }
  }
  changed_.notify_all();
  return given;
}

void BlobPipe::stop_reading() {
  const std::scoped_lock lock(mutex_);
  discard_ = true;
  queue_.clear();
  queued_ = front_used_ = 0;
  changed_.notify_all();
}

}  // namespace kelp::image
