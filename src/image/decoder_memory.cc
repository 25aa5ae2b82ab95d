#include "image/decoder_memory.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdlib>

#include "base/owned.h"

namespace kelp::image {

namespace {

/// A window of 8 MiB, which every decoder of zstd is meant to have and xz(1) writes, and its buffers: three of them are
/// no matter.
constexpr size_t kInMemory = 9U << 20U;
constexpr size_t kLetGoEvery = 1U << 20U;

}  // namespace

DecoderMemory::~DecoderMemory() {
  if (mapping_ != nullptr) ::munmap(mapping_, size_);
}

void* DecoderMemory::allocate(size_t size) noexcept {
  if (size <= kInMemory || directory_.empty() || mapping_ != nullptr) return std::malloc(size);
  const Fd file(::open(directory_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!file) return std::malloc(size);
  // All of it now: a disk that is full later would be a signal at some write into memory.
  failure_ = ::posix_fallocate(file.get(), 0, static_cast<off_t>(size));
  if (failure_ != 0) return nullptr;
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (memory == MAP_FAILED) {
    failure_ = errno;
    return nullptr;
  }
  mapping_ = memory;
  size_ = size;
  return memory;
}

void DecoderMemory::free(void* memory) noexcept {
  if (memory != mapping_ || memory == nullptr) {
    std::free(memory);
    return;
  }
  ::munmap(mapping_, size_);
  mapping_ = nullptr;
}

void DecoderMemory::passed(size_t bytes) noexcept {
  if (mapping_ == nullptr) return;
  since_ += bytes;
  if (since_ < kLetGoEvery) return;
  since_ = 0;
  ::madvise(mapping_, size_, MADV_DONTNEED);  // of a shared file: what was written stays in it
}

}  // namespace kelp::image
