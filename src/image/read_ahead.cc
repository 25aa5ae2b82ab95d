#include "image/read_ahead.h"

#include <algorithm>
#include <cstring>

namespace kelp::image {

namespace {
constexpr size_t kChunkBytes = 256 * 1024;
}  // namespace

ReadAhead::ReadAhead(Source& inner) : inner_(inner) {
  hasher_ = std::thread([this] { hash(); });
  try {
    filler_ = std::thread([this] { fill(); });
  } catch (...) {
    stop();
    throw;
  }
}

ReadAhead::~ReadAhead() { stop(); }

void ReadAhead::stop() noexcept {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (filler_.joinable()) filler_.join();
  if (hasher_.joinable()) hasher_.join();
}

void ReadAhead::fill() {
  try {
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return stop_ || filled_ - std::min(hashed_, read_) < kChunks; });
        if (stop_) return;
      }
      Chunk& next = chunk(filled_);
      next.bytes.resize(kChunkBytes);
      next.size = inner_.read(next.bytes.data(), next.bytes.size());
      const std::lock_guard lock(mutex_);
      if (next.size == 0) {
        ended_ = true;
      } else {
        ++filled_;
      }
      changed_.notify_all();
      if (ended_) return;
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    error_ = std::current_exception();
    ended_ = true;
    changed_.notify_all();
  }
}

void ReadAhead::hash() {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stop_ || ended_ || hashed_ < filled_; });
      if (stop_ || hashed_ == filled_) return;
    }
    const Chunk& next = chunk(hashed_);
    hash_.update(next.bytes.data(), next.size);
    const std::lock_guard lock(mutex_);
    ++hashed_;
    changed_.notify_all();
  }
}

size_t ReadAhead::read(void* buffer, size_t size) {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ended_ || read_ < filled_; });
    if (read_ == filled_) {
      if (error_) std::rethrow_exception(error_);
      return 0;
    }
  }
  Chunk& current = chunk(read_);
  const size_t count = std::min(size, current.size - position_);
  std::memcpy(buffer, current.bytes.data() + position_, count);
  position_ += count;
  if (position_ == current.size) {
    position_ = 0;
    const std::lock_guard lock(mutex_);
    ++read_;
    changed_.notify_all();
  }
  return count;
}

DigestName ReadAhead::digest() {
  filler_.join();
  hasher_.join();
  return hash_.digest();
}

}  // namespace kelp::image
