#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <span>
#include <vector>

#include "image/compression.h"

namespace kelp::image {

/// A bounded queue of bytes between the thread that downloads a blob and the one that unpacks it. Whoever leaves
/// first tells the other: the reader by stop_reading() (what comes is thrown away from then on, so that the writer can
/// finish checking the digest), the writer by end() or fail().
class BlobPipe : public Source {
 public:
  explicit BlobPipe(size_t capacity) : capacity_(capacity) {}

  /// Waits while the queue is full.
  void write(std::span<const std::byte> bytes);
  /// Everything was written.
  void end();
  /// The rest will not come: read() throws Cancelled.
  void fail();

  /// Waits for bytes; 0 at the end. throws Cancelled after fail()
  size_t read(void* buffer, size_t size) override;
  void stop_reading();

 private:
  enum class State { open, ended, failed };
  const size_t capacity_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::vector<std::byte>> queue_;
  size_t queued_ = 0, front_used_ = 0;
  State state_ = State::open;
  bool discard_ = false;
};

}  // namespace kelp::image
