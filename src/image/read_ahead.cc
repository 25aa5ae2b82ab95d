#include "image/read_ahead.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace kelp::image {

namespace {
constexpr size_t kChunk = 256 * 1024;
constexpr size_t kChunks = 16;
}  // namespace

ReadAhead::ReadAhead(Source& inner) : inner_(inner), thread_([this] { run(); }) {}

ReadAhead::~ReadAhead() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  join();
}

void ReadAhead::join() {
  if (thread_.joinable()) thread_.join();
}

void ReadAhead::run() {
  try {
    for (;;) {
      std::vector<char> chunk;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return stop_ || full_.size() < kChunks; });
        if (stop_) return;
        if (!spare_.empty()) {
          chunk = std::move(spare_.back());
          spare_.pop_back();
        }
      }
      chunk.resize(kChunk);
      const size_t got = inner_.read(chunk.data(), chunk.size());
      chunk.resize(got);
      const std::lock_guard lock(mutex_);
      if (got == 0) {
        ended_ = true;
        changed_.notify_all();
        return;
      }
      full_.push_back(std::move(chunk));
      changed_.notify_all();
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    error_ = std::current_exception();
    ended_ = true;
    changed_.notify_all();
  }
}

size_t ReadAhead::read(void* buffer, size_t size) {
  if (used_ == current_.size()) {
    std::unique_lock lock(mutex_);
    if (!current_.empty()) spare_.push_back(std::move(current_));
    current_.clear();
    used_ = 0;
    changed_.wait(lock, [&] { return ended_ || !full_.empty(); });
    if (full_.empty()) {
      if (error_) std::rethrow_exception(error_);
      return 0;
    }
    current_ = std::move(full_.front());
    full_.pop_front();
    changed_.notify_all();
  }
  const size_t count = std::min(size, current_.size() - used_);
  std::memcpy(buffer, current_.data() + used_, count);
  used_ += count;
  return count;
}

}  // namespace kelp::image
