#pragma once

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "image/compression.h"
#include "image/digest.h"

namespace kelp::image {

/// Reads a source in a thread of its own, a few megabytes ahead, and hashes what comes in another one: inflating,
/// hashing and making files each take about as long as the others. Errors of the source come out of read().
class ReadAhead : public Source {
 public:
  explicit ReadAhead(Source& inner);
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;
  /// Stops reading (after the read under way) and joins.
  ~ReadAhead() override;

  size_t read(void* buffer, size_t size) override;
  /// After read() gave 0: of everything that was read; call once. The source may be used again, the threads are gone.
  [[nodiscard]] DigestName digest();
  [[nodiscard]] std::uint64_t count() const noexcept { return hash_.size(); }

 private:
  static constexpr size_t kChunks = 16;
  struct Chunk {
    std::vector<char> bytes;
    size_t size = 0;
  };

  void fill();
  void hash();
  void stop() noexcept;
  Chunk& chunk(std::uint64_t number) { return chunks_[number % kChunks]; }

  Source& inner_;
  Sha256 hash_;
  std::array<Chunk, kChunks> chunks_;  ///< a ring
  size_t position_ = 0;                ///< the reader's, in its chunk
  std::mutex mutex_;
  std::condition_variable changed_;
  // How many chunks each has done, counted from the beginning. A chunk is filled again when both others are done.
  std::uint64_t filled_ = 0, hashed_ = 0, read_ = 0;
  bool ended_ = false, stop_ = false;
  std::exception_ptr error_;
  std::thread hasher_, filler_;
};

}  // namespace kelp::image
