#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "image/compression.h"

namespace kelp::image {

/// One member of a tar archive. Names are bytes, exactly as in the archive.
struct TarEntry {
  enum class Type { file, hard_link, symlink, character, block, directory, fifo };
  Type type = Type::file;
  std::string name;
  std::string link;   ///< target of links
  unsigned mode = 0;  ///< permission bits, 07777
  std::uint64_t uid = 0, gid = 0;
  std::int64_t mtime = 0;        ///< seconds since the epoch
  std::uint32_t mtime_nsec = 0;  ///< 0–999'999'999
  std::uint64_t size = 0;        ///< of the file; holes included
  std::uint64_t stored = 0;      ///< bytes of data that follow
  std::uint32_t major = 0, minor = 0;
  std::map<std::string, std::string> xattrs;
  bool sparse = false;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> extents;  ///< sparse: (offset, length) of the data, ascending
};

/// Reads a tar stream: v7, ustar, GNU (long names, base-256, sparse) and pax (all of POSIX, SCHILY.xattr,
/// LIBARCHIVE.xattr, GNU sparse 0.0, 0.1, 1.0).
///
/// Why not libarchive, which reads the archives of users: it gives names in the locale's character set, normalised
/// (NFD becomes NFC) or replaced where they are not UTF-8; a file of a layer must have the very bytes it was packed
/// with.
///
/// source: pax(1) of POSIX.1-2017; GNU tar manual, "Standard" and "Sparse Formats"; Go's archive/tar for what images
/// hold
class TarReader {
 public:
  /// `what` names the archive in errors; source is borrowed.
  TarReader(Source& source, std::string what);

  /// The next member; false at the end. Unread data of the last one is skipped.
  /// throws  Error naming the archive and, where known, the member: truncated, bad checksum, bad number, …
  bool next(TarEntry& entry);
  /// Stored data of the current member, at most `max` bytes, valid until the next call; empty at its end.
  std::string_view data(size_t max = SIZE_MAX);
  /// Reads to the end of the stream, so that who hashes it sees every byte.
  void drain();

 private:
  using Records = std::vector<std::pair<std::string, std::string>>;

  [[noreturn]] void fail(const std::string& reason) const;
  bool fill();
  bool read_block(char* block);
  std::string read_text(std::uint64_t size, const char* kind);
  void skip_data();
  std::uint64_t number(const char* field, size_t size, const char* name) const;
  std::int64_t signed_number(const char* field, size_t size, const char* name) const;
  Records parse_records(const std::string& text) const;
  void read_header(const char* block, TarEntry& entry) const;
  void apply_records(const Records& records, TarEntry& entry);
  void read_old_sparse(const char* block, TarEntry& entry);
  void read_sparse_map(TarEntry& entry);
  void check_sparse(TarEntry& entry) const;

  Source& source_;
  std::string what_, current_;
  std::vector<char> buffer_;
  size_t at_ = 0, end_ = 0;
  bool stream_ended_ = false;
  std::uint64_t left_ = 0, padding_ = 0;  ///< of the current member
  Records global_;
};

}  // namespace kelp::image
