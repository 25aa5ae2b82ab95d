#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "image/compression.h"
#include "image/tar_reader.h"

namespace kelp::image {

/// Writes a tar archive: ustar where a member fits, a pax header in front of it where not. Equal members give equal
/// bytes: no names of users, no times but the members'.
class TarWriter {
 public:
  /// out is borrowed. uid, gid: owner of what file() writes.
  explicit TarWriter(Sink& out, std::uint64_t uid = 0, std::uint64_t gid = 0) : out_(out), uid_(uid), gid_(gid) {}

  /// Starts a member; a file's entry.size bytes must follow. Sparse entries are not written (holes become zeros).
  /// Times are whole seconds, as layers have them everywhere.
  void member(const TarEntry& entry);
  void data(const void* bytes, size_t size);
  /// A small file in one go, mode 0644, time `mtime`.
  void file(const std::string& name, std::string_view content, std::int64_t mtime = 0);
  /// Two blocks of zeros; finishes the sink, too.
  void finish();

 private:
  void pad();
  void header(const TarEntry& entry, char type, const std::string& name, const std::string& link);

  Sink& out_;
  std::uint64_t uid_, gid_;
  std::uint64_t left_ = 0, written_ = 0;
};

}  // namespace kelp::image
