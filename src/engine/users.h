#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/owned.h"
#include "store/container_record.h"

namespace kelp::engine {

/// Who the process will be, as found in the container's own /etc/passwd and /etc/group.
struct ResolvedUser {
  std::uint32_t uid = 0, gid = 0;
  std::vector<std::uint32_t> groups;  ///< supplementary
  std::string home = "/";
  std::string name;  ///< "" when the passwd file has no such uid
  bool in_passwd = false;
};

/// user      "", "name", "uid", each with ":group" or ":gid"; "" = 0
/// group_add  further groups by name or number
/// passwd, group  texts of the files, "" when absent. Broken lines are skipped.
/// throws    UsageError "unable to find user x: no matching entries in passwd file"
ResolvedUser resolve_user(std::string_view user, const store::Strings& group_add, std::string_view passwd,
                          std::string_view group);

/// A read-only look into a root file system that is not mounted: directories stacked as overlayfs would, top first,
/// whiteouts and opaque directories honoured, links resolved inside.
class LayeredRoot {
 public:
  explicit LayeredRoot(const std::vector<std::string>& directories);

  struct Entry {
    Fd fd;  ///< O_PATH
    bool directory = false;
    unsigned mode = 0;
  };
  /// nullopt: nothing there.
  [[nodiscard]] std::optional<Entry> find(std::string_view path) const;
  /// Text of a regular file, read once; nullopt when it is not there or cannot be read.
  [[nodiscard]] std::optional<std::string> read(std::string_view path, size_t max = 1U << 20U) const;

 private:
  [[nodiscard]] std::optional<Entry> find_in_one(std::string_view path) const;

  std::vector<Fd> roots_;
  mutable std::map<std::string, std::optional<std::string>, std::less<>> read_;
};

}  // namespace kelp::engine
