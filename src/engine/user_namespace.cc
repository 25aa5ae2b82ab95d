#include "engine/user_namespace.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

// kelp's own code and most containers live in S, where 0 is the caller. The other --userns modes put the container in a
// child of S; its map lines are in ids of S, each inside one extent of S, as the kernel demands.
namespace kelp::engine {

namespace {

using sys::IdRange;
using sys::IdRanges;

std::uint32_t size_of(const IdRanges& outer) {
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(sys::id_count(outer), UINT32_MAX));
}

/// Cuts lines where an extent of S ends. throws UsageError where S does not have an id
IdRanges within_extents(const IdRanges& wanted, const IdRanges& outer, const char* option) {
  IdRanges cut;
  for (IdRange line : wanted)
    while (line.count > 0) {
      const auto extent = std::find_if(outer.begin(), outer.end(), [&](const IdRange& have) {
        return line.outside >= have.inside && line.outside - have.inside < have.count;
      });
      if (extent == outer.end()) {
        UsageError error(fmt::format("{}: id {} is not among the {} ids that this user has", option, line.outside,
                                     sys::id_count(outer)));
        error.with_hint("a wider range: sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER");
        throw error;
      }
      const std::uint32_t count = std::min(line.count, extent->count - (line.outside - extent->inside));
      cut.push_back({line.inside, line.outside, count});
      line.inside += count;
      line.outside += count;
      line.count -= count;
    }
  return cut;
}

/// Container id `kept` is the caller (0 of S), all others are the subordinate ids in order.
IdRanges keep_one(std::uint32_t kept, std::uint32_t size) {
  IdRanges ranges;
  const std::uint32_t below = std::min(kept, size - 1);
  if (below > 0) ranges.push_back({0, 1, below});
  ranges.push_back({kept, 0, 1});
  if (size - 1 > below) ranges.push_back({kept + 1, 1 + below, size - 1 - below});
  return ranges;
}

/// [flags]container:from[:amount]; "@" = `from` is an id of the host.
IdRanges parse_map(const store::Strings& texts, const IdRanges& outer, const char* option) {
  IdRanges ranges;
  for (const std::string& text : texts) {
    const auto parts = split(text, ':');
    const auto bad = [&] { throw_usage("{} {}: not CONTAINER_ID:FROM_ID[:AMOUNT]", option, quoted(text)); };
    if (parts.size() < 2 || parts.size() > 3) bad();
    const bool from_host = starts_with(parts[1], "@");
    const auto inside = to_int(parts[0], 0, UINT32_MAX - 1);
    const auto from = to_int(from_host ? std::string_view(parts[1]).substr(1) : parts[1], 0, UINT32_MAX - 1);
    const auto count = parts.size() == 3 ? to_int(parts[2], 1, UINT32_MAX) : std::optional<std::int64_t>(1);
    if (!inside || !from || !count) bad();
    IdRange line{static_cast<std::uint32_t>(*inside), static_cast<std::uint32_t>(*from),
                 static_cast<std::uint32_t>(*count)};
    if (from_host && !sys::map_in(outer, line.outside, line.outside))
      throw_usage("{} {}: host id {} is not among the ids that this user has", option, quoted(text), *from);
    for (const IdRange& other : ranges)
      if (line.inside < other.inside + other.count && other.inside < line.inside + line.count)
        throw_usage("{} {}: overlaps another line", option, quoted(text));
    ranges.push_back(line);
  }
  return ranges;
}

std::uint32_t number(const std::string& value, const std::string& option) {
  const auto parsed = to_int(value, 0, UINT32_MAX - 1);
  if (!parsed) throw_usage("--userns {}: {} is not an id", quoted(option), quoted(value));
  return static_cast<std::uint32_t>(*parsed);
}

/// The first gap of `size` ids of S (not its 0) that no other automatic container has.
IdRanges free_range(std::uint32_t size, const IdRanges& outer, const std::vector<IdRanges>& taken) {
  std::vector<std::pair<std::uint32_t, std::uint32_t>> used;  // first, past the last
  for (const IdRanges& ranges : taken)
    for (const IdRange& line : ranges) used.emplace_back(line.outside, line.outside + line.count);
  std::sort(used.begin(), used.end());
  std::uint32_t start = 1;
  for (const auto& [first, end] : used) {
    if (first >= start && first - start >= size) break;
    start = std::max(start, end);
  }
  if (start + size > size_of(outer))
    throw_error("--userns auto: no {} unused ids are left of the {} that this user has", size, size_of(outer));
  return {{0, start, size}};
}

}  // namespace

ContainerIds plan_ids(const store::ContainerConfig& config, const sys::IdMaps& outer, std::uint32_t caller_uid,
                      std::uint32_t caller_gid, const std::vector<sys::IdRanges>& taken) {
  ContainerIds ids;
  const bool single = size_of(outer.uids) <= 1 || size_of(outer.gids) <= 1;
  ids.layers = single ? store::IdMapping::single() : store::IdMapping::full();
  const std::string& text = config.userns;
  const size_t colon = text.find(':');
  const std::string mode = text.substr(0, colon);
  const store::Strings options = colon == std::string::npos ? store::Strings{} : split(text.substr(colon + 1), ',');
  if (!config.subuid_name.empty() || !config.subgid_name.empty())
    throw_usage("--subuidname and --subgidname choose ranges as root does; a user has his own ranges only");
  if (!config.uidmap.empty() || !config.gidmap.empty()) {
    if (!text.empty() && text != "private") throw_usage("--userns and --uidmap or --gidmap exclude each other");
    const auto uids = parse_map(config.uidmap.empty() ? config.gidmap : config.uidmap, outer.uids, "--uidmap");
    const auto gids = parse_map(config.gidmap.empty() ? config.uidmap : config.gidmap, outer.gids, "--gidmap");
    ids.uids = within_extents(uids, outer.uids, "--uidmap");
    ids.gids = within_extents(gids, outer.gids, "--gidmap");
  } else if (text.empty() || text == "host" || text == "private") {
    return ids;
  } else if (mode == "keep-id") {
    std::uint32_t uid = caller_uid;
    std::uint32_t gid = caller_gid;
    for (const std::string& option : options) {
      if (starts_with(option, "uid="))
        uid = number(option.substr(4), text);
      else if (starts_with(option, "gid="))
        gid = number(option.substr(4), text);
      else
        throw_usage("--userns {}: unknown option {}", quoted(text), quoted(option));
    }
    ids.uids = within_extents(keep_one(uid, size_of(outer.uids)), outer.uids, "--userns keep-id");
    ids.gids = within_extents(keep_one(gid, size_of(outer.gids)), outer.gids, "--userns keep-id");
    ids.user = fmt::format("{}:{}", uid, gid);
  } else if (text == "nomap") {
    if (single) throw_usage("--userns nomap needs subordinate ids: this user has none");
    ids.uids = within_extents({{0, 1, size_of(outer.uids) - 1}}, outer.uids, "--userns nomap");
    ids.gids = within_extents({{0, 1, size_of(outer.gids) - 1}}, outer.gids, "--userns nomap");
  } else if (mode == "auto") {
    std::uint32_t size = 1024;
    for (const std::string& option : options) {
      if (!starts_with(option, "size=")) throw_usage("--userns {}: unknown option {}", quoted(text), quoted(option));
      size = std::max<std::uint32_t>(1, number(option.substr(5), text));
    }
    ids.uids = within_extents(free_range(size, outer.uids, taken), outer.uids, "--userns auto");
    ids.gids = within_extents({{0, ids.uids.front().outside, size}}, outer.gids, "--userns auto");
  } else {
    throw_usage("--userns {}: host, keep-id[:uid=,gid=], auto[:size=], nomap, private and container:NAME are possible",
                quoted(text));
  }
  if (!single) ids.layers = store::IdMapping::ranges(ids.uids, ids.gids);
  return ids;
}

store::IdMapping layers_map(const store::ContainerRecord& record) {
  if (record.map_key == "single") return store::IdMapping::single();
  if (record.uid_map.empty()) return store::IdMapping::full();
  return store::IdMapping::ranges(record.uid_map, record.gid_map);
}

}  // namespace kelp::engine
