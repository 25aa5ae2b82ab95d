#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/owned.h"
#include "image/tar_reader.h"
#include "store/layers.h"

namespace kelp::image {

/// Makes files below a root directory for members of an untrusted archive.
///
/// No name leads out of the root: a member's parent is opened below it with openat2 (no link followed), the member
/// itself is made with *at() calls that do not follow links. Where the parent leads through links inside the root,
/// they are resolved by hand; one that leaves the root is an error. All files are made anew: what stands there is
/// unlinked first, never written through.
class TreeWriter {
 public:
  struct Options {
    const store::IdMapping* map = nullptr;
    bool whiteouts = true;    ///< .wh. members become overlay whiteouts
    std::string owners_file;  ///< single-ID mode, "" = none
  };
  TreeWriter(int root_fd, Options options);

  /// Makes one member; file data is taken from the reader. throws Error naming what is wrong (the caller adds the name)
  void add(const TarEntry& entry, TarReader& reader);
  /// Owners, modes, xattrs and times of directories, deepest last made first; the owners file.
  void finish();

  [[nodiscard]] std::uint64_t files() const noexcept { return files_; }
  /// What could not be done, one line each.
  [[nodiscard]] std::vector<std::string> warnings() const;

 private:
  struct Place {
    int parent = -1;  ///< borrowed from the cache
    std::string directory, name;
  };
  struct Attributes {
    unsigned mode = 0755;
    std::uint64_t uid = 0, gid = 0;
    std::int64_t mtime = 0;
    std::uint32_t mtime_nsec = 0;
    std::map<std::string, std::string> xattrs;
  };
  struct Skipped {
    std::uint64_t count = 0;
    std::string first;
  };

  Place place_of(std::string_view name, const char* what);
  int directory_fd(const std::string& path, bool make);
  [[nodiscard]] Fd open_directory(const std::string& path) const;
  [[nodiscard]] Fd open_finished(const std::string& path) const;
  static std::string path_of(const Place& place);
  std::string resolve_links(const std::string& path) const;
  void make_directories(const std::string& path);
  void forget_directories() noexcept { cache_.clear(); }
  void clear_the_way(Place& place);
  bool whiteout(const Place& place);
  void make_directory(Place& place, const TarEntry& entry);
  void make_file(Place& place, const TarEntry& entry, TarReader& reader);
  void make_hard_link(const Place& place, const TarEntry& entry);
  void make_other(Place& place, const TarEntry& entry);
  void write_data(int fd, const TarEntry& entry, TarReader& reader);
  bool own(int fd, const char* name, const Place& place, const Attributes& attributes);
  void set_xattrs(int fd, const std::string& path, const std::map<std::string, std::string>& xattrs);
  void record_owner(const std::string& path, const Attributes& attributes);
  static Attributes attributes_of(const TarEntry& entry);
  static void note(Skipped& what, const std::string& first);

  int root_;
  Options options_;
  unsigned umask_;
  std::list<std::pair<std::string, Fd>> cache_;  ///< open directories, last used first
  std::map<std::string, Attributes> directories_;
  std::string owners_;
  std::uint64_t files_ = 0;
  Skipped unmapped_, devices_, xattrs_;
};

}  // namespace kelp::image
