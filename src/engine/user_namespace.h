#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/context.h"
#include "store/container_record.h"
#include "store/layers.h"
#include "sys/idmap.h"

namespace kelp::engine {

/// How a container's ids lie in S, from --userns, --uidmap and --gidmap.
///
/// uids, gids  of a child user namespace: inside = container id, outside = id in S; empty: the container lives in S
/// layers      the id map its layers are unpacked under
/// user        the user that keep-id asks for, "uid:gid"; "" = the image's
struct ContainerIds {
  sys::IdRanges uids, gids;
  store::IdMapping layers;
  std::string user;
};

/// taken: maps of other containers, for auto. throws UsageError: unknown mode, ids that S does not have
ContainerIds resolve_ids(Context& context, const store::ContainerConfig& config);

/// The pure part: maps of S given. other: maps of the container named by container:X.
ContainerIds plan_ids(const store::ContainerConfig& config, const sys::IdMaps& outer, std::uint32_t caller_uid,
                      std::uint32_t caller_gid, const std::vector<sys::IdRanges>& taken);

/// The id map of a record's layers.
store::IdMapping layers_map(const store::ContainerRecord& record);

}  // namespace kelp::engine
