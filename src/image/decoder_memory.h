#pragma once

#include <cstddef>
#include <string>
#include <utility>

namespace kelp::image {

/// Memory of one decoder. Its window (xz: dictionary), which the data may want to be 128 MiB, is kept in a file without
/// a name where it is large: of a file only the pages that are in use take memory, and the kernel may put them onto the
/// disk.
///
/// directory  where that file is made; "" = always in memory, and so where the file system knows no files without name
class DecoderMemory {
 public:
  explicit DecoderMemory(std::string directory) : directory_(std::move(directory)) {}
  DecoderMemory(const DecoderMemory&) = delete;
  DecoderMemory& operator=(const DecoderMemory&) = delete;
  ~DecoderMemory();

  /// null where there is no room: then failure() has the errno.
  void* allocate(size_t size) noexcept;
  void free(void* memory) noexcept;
  [[nodiscard]] int failure() const noexcept { return failure_; }

  /// So many bytes went through the window: now and then its pages are let go, and come back when they are used.
  void passed(size_t bytes) noexcept;

 private:
  std::string directory_;
  void* mapping_ = nullptr;
  size_t size_ = 0, since_ = 0;
  int failure_ = 0;
};

}  // namespace kelp::image
