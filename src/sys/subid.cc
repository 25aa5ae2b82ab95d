#include "sys/subid.h"

#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "base/program_path.h"
#include "base/text.h"
#include "sys/capability.h"
#include "sys/procfs.h"

namespace kelp::sys {
namespace {

struct Piece {
  std::uint64_t first, end;  // [first, end)
};

/// The parts of [first, end) that do not hit any of `taken`.
std::vector<Piece> without(Piece piece, const std::vector<Piece>& taken) {
  std::vector<Piece> left = {piece};
  for (const Piece& hole : taken) {
    std::vector<Piece> next;
    for (const Piece& part : left) {
      if (hole.end <= part.first || hole.first >= part.end) {
        next.push_back(part);
        continue;
      }
      if (part.first < hole.first) next.push_back({part.first, hole.first});
      if (hole.end < part.end) next.push_back({hole.end, part.end});
    }
    left = std::move(next);
  }
  return left;
}

/// {0 → own, 1}, then the subordinate ranges from 1 on: cut to what the present user namespace itself has (inside a
/// container /etc/subuid often promises more), each line within one of its extents, no id twice.
IdRanges full_map(std::uint32_t own, const IdRanges& subordinate, const IdRanges& present) {
  IdRanges map = {{0, own, 1}};
  std::vector<Piece> taken = {{own, std::uint64_t{own} + 1}};
  std::uint64_t next_inside = 1;
  for (const IdRange& range : subordinate) {
    for (const IdRange& extent : present) {
      const Piece common{
          std::max<std::uint64_t>(range.outside, extent.inside),
          std::min(std::uint64_t{range.outside} + range.count, std::uint64_t{extent.inside} + extent.count)};
      if (common.first >= common.end) continue;
      for (const Piece& part : without(common, taken)) {
        const std::uint64_t count = std::min(part.end - part.first, std::uint64_t{UINT32_MAX} - next_inside);
        if (count == 0) continue;
        map.push_back({static_cast<std::uint32_t>(next_inside), static_cast<std::uint32_t>(part.first),
                       static_cast<std::uint32_t>(count)});
        next_inside += count;
      }
      taken.push_back(common);
    }
  }
  return map;
}

IdRanges own_ranges(const std::string& file) {
  std::optional<std::string> text;
  try {
    text = try_read_file(file, 16 << 20);
  } catch (const Error&) {  // unreadable is as good as missing: the helpers have the last word anyway
  }
  if (!text) return {};
  return parse_subids(*text, own_user_name(), ::getuid());
}

IdRanges present_map(const char* path) {
  try {
    IdRanges map = read_id_map(path);
    if (!map.empty()) return map;
  } catch (const Error&) {
  }
  return {{0, 0, UINT32_MAX}};
}

bool has_cap(int bit) { return (current_caps().effective >> bit & 1) != 0; }

}  // namespace

IdRanges parse_subids(std::string_view text, std::string_view user, std::uint32_t uid) {
  IdRanges ranges;
  const std::string number = std::to_string(uid);
  for (const std::string& line : split(text, '\n')) {
    const std::vector<std::string> fields = split(trim(line), ':');
    if (fields.size() != 3 || fields[0].empty() || fields[0][0] == '#') continue;
    if (fields[0] != number && (user.empty() || fields[0] != user)) continue;
    const auto first = to_int(trim(fields[1]), 0, UINT32_MAX - 1);
    const auto count = to_int(trim(fields[2]), 1, UINT32_MAX);
    if (!first || !count) continue;
    const std::int64_t fitting = std::min<std::int64_t>(*count, std::int64_t{UINT32_MAX} - *first);
    ranges.push_back({0, static_cast<std::uint32_t>(*first), static_cast<std::uint32_t>(fitting)});
  }
  return ranges;
}

IdRanges own_subuids(const SubidSources& sources) { return own_ranges(sources.subuid_file); }
IdRanges own_subgids(const SubidSources& sources) { return own_ranges(sources.subgid_file); }

const std::string& newuidmap_path() {
  static const std::string path = find_in_path("newuidmap");
  return path;
}
const std::string& newgidmap_path() {
  static const std::string path = find_in_path("newgidmap");
  return path;
}

bool helper_is_privileged(const std::string& path) {
  struct stat info {};
  if (path.empty() || ::stat(path.c_str(), &info) < 0) return false;
  struct statvfs fs {};
  if (::statvfs(path.c_str(), &fs) == 0 && (fs.f_flag & ST_NOSUID) != 0) return false;
  if ((info.st_mode & S_ISUID) != 0 && info.st_uid == 0) return true;
  return ::getxattr(path.c_str(), "security.capability", nullptr, 0) > 0;
}

const std::optional<PasswdEntry>& own_passwd_entry() {
  static const std::optional<PasswdEntry> found = []() -> std::optional<PasswdEntry> {
    const std::string number = std::to_string(::getuid());
    try {
      if (const auto text = try_read_file("/etc/passwd", 16 << 20))
        for (const std::string& line : split(*text, '\n')) {
          const std::vector<std::string> fields = split(line, ':');
          if (fields.size() >= 6 && fields[2] == number) return PasswdEntry{fields[0], fields[5]};
        }
    } catch (const Error&) {  // as if he were not in it
    }
    return std::nullopt;
  }();
  return found;
}

std::string own_user_name() {
  // /etc/passwd alone: NSS cannot be used from static programs, and $USER covers directory services.
  if (const auto& entry = own_passwd_entry()) return entry->name;
  for (const char* variable : {"LOGNAME", "USER"})
    if (const char* name = ::getenv(variable); name != nullptr && *name != '\0') return name;
  return "";
}

IdMaps default_maps(SingleIdReason* reason, const SubidSources& sources) {
  const std::uint32_t uid = ::geteuid();
  const std::uint32_t gid = ::getegid();
  const auto single = [&](std::string text, std::string hint) {
    if (reason != nullptr) *reason = {std::move(text), std::move(hint)};
    return IdMaps{{{0, uid, 1}}, {{0, gid, 1}}, false};
  };
  const IdRanges subuids = own_subuids(sources);
  const IdRanges subgids = own_subgids(sources);
  if (subuids.empty() || subgids.empty()) {
    const std::string name = own_user_name().empty() ? std::to_string(uid) : own_user_name();
    return single(fmt::format("no subordinate ids for {} in {}", name,
                              subuids.empty() ? sources.subuid_file : sources.subgid_file),
                  fmt::format("sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {}", name));
  }
  IdMaps maps{full_map(uid, subuids, present_map("/proc/self/uid_map")),
              full_map(gid, subgids, present_map("/proc/self/gid_map")), true};
  if (maps.uids.size() == 1 || maps.gids.size() == 1)
    return single("the subordinate ids are not part of the present user namespace",
                  "give the outer container a larger id range, or ranges in /etc/subuid that lie inside it");
  if (has_cap(CAP_SETUID) && has_cap(CAP_SETGID)) {
    maps.helpers = false;  // root of this namespace writes the maps itself, without two more programs
    return maps;
  }
  for (const auto& [name, path] :
       {std::pair<const char*, const std::string&>{"newuidmap", newuidmap_path()}, {"newgidmap", newgidmap_path()}}) {
    if (path.empty())
      return single(fmt::format("{} is not installed", name), "install the package uidmap (shadow-utils on Fedora)");
    if (!helper_is_privileged(path))
      return single(fmt::format("{} is neither set-uid nor has it a file capability", path),
                    fmt::format("sudo chmod u+s {} {}", newuidmap_path(), newgidmap_path()));
  }
  if (no_new_privs())
    return single("no_new_privs is set on this process, so newuidmap cannot work",
                  "start kelp without no_new_privs (for systemd: NoNewPrivileges=no)");
  return maps;
}

}  // namespace kelp::sys
