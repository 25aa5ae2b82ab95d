#include "sys/idmap.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <optional>

#include "base/error.h"
#include "base/owned.h"
#include "base/text.h"
#include "sys/capability.h"
#include "sys/map_helpers.h"
#include "sys/procfs.h"
#include "sys/spawn.h"
#include "sys/subid.h"

namespace kelp::sys {
namespace {

constexpr size_t kMaxMapLines = 340;  // user_namespaces(7), since Linux 4.15

/// One running newuidmap or newgidmap with its stderr.
struct Helper {
  const char* name;
  std::optional<Child> child;
  Fd errors;
};

/// spawn() does not copy our page tables, and the second helper starts while the first one runs.
Helper start_helper(const char* name, const std::string& path, pid_t child, const IdRanges& ranges) {
  if (path.empty())
    throw SysError(fmt::format("find {} (package uidmap, shadow-utils or shadow-uidmap)", name), ENOENT);
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) throw_errno("pipe for the errors of {}", name);
  Helper helper{name, std::nullopt, Fd(ends[0])};
  const Fd write_end(ends[1]);
  SpawnRequest request;
  request.path = path;
  request.argv = {name, std::to_string(child)};
  for (const IdRange& range : ranges)
    for (const std::uint32_t number : {range.inside, range.outside, range.count})
      request.argv.push_back(std::to_string(number));
  request.env = {"LC_ALL=C"};
  request.fds = {{0, -1}, {1, -1}, {2, write_end.get()}};
  helper.child = spawn(request);
  return helper;
}

/// "" when the helper succeeded, else what it said.
std::string finish_helper(Helper& helper) {
  std::string said;
  char buffer[512];
  ssize_t n;
  while ((n = ::read(helper.errors.get(), buffer, sizeof buffer)) > 0 || (n < 0 && errno == EINTR))
    if (n > 0 && said.size() < 4096) said.append(buffer, static_cast<size_t>(n));
  const int status = helper.child->wait();
  if (status == 0) return "";
  std::string text(trim(said));
  if (text.empty()) text = fmt::format("exit status {}", status);
  if (starts_with(text, std::string(helper.name) + ": ")) text.erase(0, std::string_view(helper.name).size() + 2);
  return fmt::format("{}: {}", helper.name, printable(text));
}

std::string map_text(const IdRanges& ranges) {
  std::string text;
  for (const IdRange& range : ranges) text += fmt::format("{} {} {}\n", range.inside, range.outside, range.count);
  return text;
}

void write_directly(pid_t child, const IdMaps& maps) {
  const std::string proc = fmt::format("/proc/{}/", child);
  write_file(proc + "uid_map", map_text(maps.uids));
  // Without CAP_SETGID over the parent namespace the kernel takes a gid_map only when setgroups is denied for good.
  if ((current_caps().effective >> CAP_SETGID & 1) == 0) write_file(proc + "setgroups", "deny");
  write_file(proc + "gid_map", map_text(maps.gids));
}

void check_lines(const IdRanges& ranges, const char* which) {
  if (ranges.empty()) throw_error("map ids: the {} map is empty", which);
  if (ranges.size() > kMaxMapLines)
    throw_error("map ids: the {} map has {} lines, the kernel takes {}", which, ranges.size(), kMaxMapLines);
}

}  // namespace

struct MapHelpers::Running {
  Helper users, groups;
  std::string groups_failed;  ///< why newgidmap could not be started
};

MapHelpers::MapHelpers(pid_t child, const IdMaps& maps) {
  check_lines(maps.uids, "uid");
  check_lines(maps.gids, "gid");
  if (!maps.helpers) {
    write_directly(child, maps);
    return;
  }
  running_ = std::make_unique<Running>(
      Running{start_helper("newuidmap", newuidmap_path(), child, maps.uids), {"newgidmap", std::nullopt, Fd()}, ""});
  try {
    running_->groups = start_helper("newgidmap", newgidmap_path(), child, maps.gids);
  } catch (const Error& error) {
    running_->groups_failed = error.message();  // the first helper still has to be waited for
  }
}

MapHelpers::~MapHelpers() = default;
MapHelpers::MapHelpers(MapHelpers&&) noexcept = default;
MapHelpers& MapHelpers::operator=(MapHelpers&&) noexcept = default;

void MapHelpers::finish() {
  const std::unique_ptr<Running> running = std::move(running_);
  if (!running) return;
  std::string failed = finish_helper(running->users);
  std::string second = running->groups_failed;
  if (second.empty()) second = finish_helper(running->groups);
  if (failed.empty()) failed = second;
  if (failed.empty()) return;
  Error error("map ids: " + failed);
  if (no_new_privs())
    error.with_hint("no_new_privs is set on this process, so set-uid helpers cannot work: start kelp outside of it");
  else
    error.with_hint("compare /etc/subuid and /etc/subgid with the ranges asked for: `kelp doctor` tells more");
  throw error;
}

void write_id_maps(pid_t child, const IdMaps& maps) { MapHelpers(child, maps).finish(); }

IdRanges read_id_map(const std::string& path) {
  IdRanges ranges;
  for (const std::string& line : split(read_file(path), '\n')) {
    if (trim(line).empty()) continue;
    unsigned inside = 0;
    unsigned outside = 0;
    unsigned count = 0;
    if (std::sscanf(line.c_str(), " %u %u %u", &inside, &outside, &count) != 3)
      throw_error("{} holds a line that is no id map: {}", path, quoted(line));
    ranges.push_back({inside, outside, count});
  }
  return ranges;
}

IdRanges normalized(IdRanges ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const IdRange& a, const IdRange& b) { return a.inside < b.inside; });
  IdRanges joined;
  for (const IdRange& range : ranges) {
    if (range.count == 0) continue;
    if (!joined.empty()) {
      IdRange& last = joined.back();
      if (std::uint64_t{last.inside} + last.count == range.inside &&
          std::uint64_t{last.outside} + last.count == range.outside &&
          std::uint64_t{last.count} + range.count <= UINT32_MAX) {
        last.count += range.count;
        continue;
      }
    }
    joined.push_back(range);
  }
  return joined;
}

std::string canonical(const IdRanges& ranges) {
  std::string text;
  for (const IdRange& range : normalized(ranges)) {
    if (!text.empty()) text += ',';
    fmt::format_to(std::back_inserter(text), "{}:{}:{}", range.inside, range.outside, range.count);
  }
  return text;
}

IdRanges parse_id_ranges(std::string_view text, std::string_view what) {
  IdRanges ranges;
  for (const std::string& part : split(text, ',')) {
    const std::vector<std::string> numbers = split(part, ':');
    IdRange range;
    bool good = numbers.size() == 3;
    if (good) {
      const auto inside = to_int(numbers[0], 0, UINT32_MAX);
      const auto outside = to_int(numbers[1], 0, UINT32_MAX);
      const auto count = to_int(numbers[2], 1, UINT32_MAX);
      good = inside && outside && count && *inside + *count - 1 <= UINT32_MAX && *outside + *count - 1 <= UINT32_MAX;
      if (good)
        range = {static_cast<std::uint32_t>(*inside), static_cast<std::uint32_t>(*outside),
                 static_cast<std::uint32_t>(*count)};
    }
    if (!good) throw_usage("{}: {} is not INSIDE:OUTSIDE:COUNT", what, quoted(part));
    ranges.push_back(range);
  }
  return ranges;
}

bool map_out(const IdRanges& ranges, std::uint32_t inside, std::uint32_t& outside) noexcept {
  for (const IdRange& range : ranges)
    if (inside >= range.inside && inside - range.inside < range.count) {
      outside = range.outside + (inside - range.inside);
      return true;
    }
  return false;
}

bool map_in(const IdRanges& ranges, std::uint32_t outside, std::uint32_t& inside) noexcept {
  for (const IdRange& range : ranges)
    if (outside >= range.outside && outside - range.outside < range.count) {
      inside = range.inside + (outside - range.outside);
      return true;
    }
  return false;
}

std::uint64_t id_count(const IdRanges& ranges) noexcept {
  std::uint64_t sum = 0;
  for (const IdRange& range : ranges) sum += range.count;
  return sum;
}

}  // namespace kelp::sys
