#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/owned.h"
#include "image/digest.h"

namespace kelp::image {

enum class Compression { none, gzip, zstd, xz, bzip2 };
/// "none", "gzip", "zstd"…
const char* compression_name(Compression compression) noexcept;
/// By the magic of the first bytes (six are enough).
Compression detect_compression(std::string_view first) noexcept;

/// A stream that is pulled. read() returns 0 only at the end.
class Source {
 public:
  virtual ~Source() = default;
  virtual size_t read(void* buffer, size_t size) = 0;
};

/// From a descriptor's current position; borrowed. `what` names it in errors.
class FdSource : public Source {
 public:
  FdSource(int fd, std::string what) : fd_(fd), what_(std::move(what)) {}
  size_t read(void* buffer, size_t size) override;

 private:
  int fd_;
  std::string what_;
};

/// Hashes and counts what passes.
class HashingSource : public Source {
 public:
  explicit HashingSource(Source& inner) : inner_(inner) {}
  size_t read(void* buffer, size_t size) override;
  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  /// Ends the hash. Only meaningful when read to the end.
  [[nodiscard]] DigestName digest() { return hash_.digest(); }

 private:
  Source& inner_;
  Sha256 hash_;
  std::uint64_t count_ = 0;
};

/// Bounds of a decompressor: a small blob must not fill the disk. zstd packs an honest file of zeros 30000 times, so
/// the ratio alone says little: it is judged of what there would be no room for.
struct InflateLimits {
  std::uint64_t max_bytes = UINT64_MAX;       ///< uncompressed
  unsigned max_ratio = 2000;                  ///< uncompressed : compressed
  std::uint64_t judged_after = 64ULL << 20U;  ///< uncompressed bytes from which on the ratio is looked at
  std::string scratch;  ///< a directory for what should not be in memory (a large zstd window); "" = none
  /// Judged when it is more than what is free on the file system of that directory, which is the scratch directory,
  /// too. fd is one's descriptor, borrowed for as long as is decompressed.
  static InflateLimits for_room_in(const std::string& directory);
  static InflateLimits for_room_at(int fd);
  /// For blobs of the store, which were judged when they came.
  static InflateLimits none();
};

/// Decompresses what `inner` gives (borrowed); the kind is found by its magic. Concatenated gzip members and zstd
/// frames are one stream. `what` names the stream in errors.
/// throws from read(): Error "what: truncated", "what: damaged gzip data", "what: … expands more than 2000 times, and
/// to more than there is room for"
std::unique_ptr<Source> decompress(Source& inner, std::string what, InflateLimits limits = {});

/// A stream that is pushed.
class Sink {
 public:
  virtual ~Sink() = default;
  virtual void write(const void* data, size_t size) = 0;
  /// Flushes; call once, at the end.
  virtual void finish() {}
};

class FdSink : public Sink {
 public:
  FdSink(int fd, std::string what) : fd_(fd), what_(std::move(what)) {}
  void write(const void* data, size_t size) override;

 private:
  int fd_;
  std::string what_;
};

/// Hashes and counts what passes on to `inner` (borrowed, may be null).
class HashingSink : public Sink {
 public:
  explicit HashingSink(Sink* inner) : inner_(inner) {}
  void write(const void* data, size_t size) override;
  void finish() override;
  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  [[nodiscard]] DigestName digest() { return hash_.digest(); }

 private:
  Sink* inner_;
  Sha256 hash_;
  std::uint64_t count_ = 0;
};

/// gzip (no name, no time: reproducible) or zstd in front of `inner` (borrowed); none passes through.
/// level 0 = the format's default.
std::unique_ptr<Sink> compress(Sink& inner, Compression compression, int level = 0);

}  // namespace kelp::image
