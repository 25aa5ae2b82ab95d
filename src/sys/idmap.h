#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace kelp::sys {

/// One line of a uid_map or gid_map: ids inside, inside+1, … are outside, outside+1, … of the parent namespace.
struct IdRange {
  std::uint32_t inside = 0;
  std::uint32_t outside = 0;
  std::uint32_t count = 0;
  bool operator==(const IdRange&) const = default;
};
using IdRanges = std::vector<IdRange>;

/// What a new user namespace gets.
///
/// helpers  true: through newuidmap and newgidmap (more than the caller's own id);
///          false: written by this process itself. With one line that maps the caller alone, setgroups is denied first
///          (the kernel's condition for an unprivileged gid_map); a privileged writer (root, or uid 0 of the parent
///          namespace) may write any map this way and keeps setgroups.
struct IdMaps {
  IdRanges uids, gids;
  bool helpers = true;
  bool operator==(const IdMaps&) const = default;
};

/// Maps the ids of a freshly cloned child.
///
/// child   pid as seen here, must wait in its own new user namespace
/// maps    inside ranges must not overlap; at most 340 lines (kernel limit)
/// throws  SysError(ENOENT) helper missing; Error with the helper's stderr when it refuses (range not delegated)
/// after   /proc/<child>/uid_map and gid_map are written; cannot be repeated
/// source  user_namespaces(7), newuidmap(1)
void write_id_maps(pid_t child, const IdMaps& maps);

/// Reads a uid_map or gid_map file, e.g. "/proc/self/uid_map". throws SysError, Error on a line it does not know.
IdRanges read_id_map(const std::string& path);

/// "inside:outside:count,…", sorted by inside with touching ranges joined: equal maps give equal texts.
std::string canonical(const IdRanges& ranges);
/// The inverse, in any order. throws UsageError naming the text; what is the option or file it came from.
IdRanges parse_id_ranges(std::string_view text, std::string_view what);

/// Sorts by inside and joins ranges that continue each other on both sides.
IdRanges normalized(IdRanges ranges);
/// The outside id of an inside id; false when it is not mapped.
bool map_out(const IdRanges& ranges, std::uint32_t inside, std::uint32_t& outside) noexcept;
/// The inside id of an outside id; false when it is not mapped.
bool map_in(const IdRanges& ranges, std::uint32_t outside, std::uint32_t& inside) noexcept;
/// Number of ids that the ranges hold together.
std::uint64_t id_count(const IdRanges& ranges) noexcept;

}  // namespace kelp::sys
