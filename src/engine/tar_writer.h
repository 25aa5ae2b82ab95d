#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace kelp::engine {

/// Writes a tar stream (ustar, with pax records where ustar is too narrow) from open directories. kelp-image's library
/// cannot be used here: this runs in a container's mount namespace, where no program of the host can be executed.
/// source: POSIX.1-2017, pax
class TarWriter {
 public:
  explicit TarWriter(int fd) : fd_(fd) {}
  TarWriter(const TarWriter&) = delete;
  TarWriter& operator=(const TarWriter&) = delete;

  /// From now on all entries belong to this owner, whatever the files' own is.
  void give_all_to(uid_t uid, gid_t gid) { owner_ = {uid, gid}; }

  /// The entry `name` of the directory, as `path` in the archive; directories with everything below them.
  /// same_mount: what is mounted below is left out (its mount point stays, empty, as if it were new).
  /// Sockets are left out, extended attributes kept except overlayfs' own. throws SysError
  void add(int dirfd, const char* name, const std::string& path, bool same_mount);
  /// The contents of an open directory, each below `prefix` ("" or "x/").
  void add_contents(int dirfd, const std::string& prefix, bool same_mount);
  /// The end mark. Without it the archive is truncated.
  void finish();

 private:
  void write(std::string_view data);
  void pad(std::uint64_t size);
  void header(const std::string& path, const struct stat& info, char type, std::uint64_t size, const std::string& link,
              const std::map<std::string, std::string>& attributes);
  void add_file(int fd, const std::string& path, const struct stat& info,
                const std::map<std::string, std::string>& attributes);

  int fd_;
  std::map<std::pair<dev_t, ino_t>, std::string> links_;
  std::optional<std::pair<uid_t, gid_t>> owner_;
  std::uint64_t mount_ = 0;  ///< id of the mount that add_contents() began in
};

}  // namespace kelp::engine
