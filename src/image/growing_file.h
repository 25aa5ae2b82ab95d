#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "image/compression.h"

namespace kelp::image {

/// A file that one thread appends to and another one reads from the start. The file itself is the queue: the writer
/// never waits for the reader, so a download ends, and the disk begins to sync it, while the layer is still being
/// unpacked.
class GrowingFile : public Source {
 public:
  /// fd  borrowed; may change as long as nobody reads
  explicit GrowingFile(int fd) : fd_(fd) {}

  /// The writer: so many bytes from the start are there now.
  void grow_to(std::uint64_t size);
  /// The writer: that was all.
  void end();
  /// The writer: the rest will not come; read() throws Cancelled.
  void fail();

  /// Waits for bytes; 0 at the end. throws Cancelled after fail()
  size_t read(void* buffer, size_t size) override;

 private:
  enum class State { open, ended, failed };
  const int fd_;
  std::uint64_t position_ = 0;  ///< the reader's
  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t size_ = 0;
  State state_ = State::open;
};

}  // namespace kelp::image
