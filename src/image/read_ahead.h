#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "image/compression.h"

namespace kelp::image {

/// Reads a source in a thread of its own, a few megabytes ahead: inflating and hashing overlap with the creation of
/// files, which is what takes the time. Errors of the source come out of read().
class ReadAhead : public Source {
 public:
  explicit ReadAhead(Source& inner);
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;
  /// Stops reading (after the read under way) and joins.
  ~ReadAhead() override;

  size_t read(void* buffer, size_t size) override;
  /// After read() gave 0: the source may be used again (its digest), the thread is gone.
  void join();

 private:
  void run();

  Source& inner_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::vector<char>> full_;
  std::vector<std::vector<char>> spare_;
  std::vector<char> current_;
  size_t used_ = 0;
  bool ended_ = false, stop_ = false;
  std::exception_ptr error_;
  std::thread thread_;
};

}  // namespace kelp::image
