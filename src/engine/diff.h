#pragma once

#include <optional>
#include <string>
#include <vector>

#include "store/container_record.h"
#include "store/images.h"

namespace kelp::engine {

struct Context;

/// One path that differs from what lies below: 'A' added, 'C' changed, 'D' deleted.
struct Change {
  char kind = 'A';
  std::string path;
};
/// What the container has changed in its image, sorted by path. What kelp itself mounts or makes is left out.
std::vector<Change> diff_container(Context& context, const store::ContainerRecord& record);
/// What the image's top layer changes in those below.
std::vector<Change> diff_image(Context& context, const store::ImageRecord& image);

/// Whose files are meant: one of the two.
struct DiffSide {
  std::optional<store::ContainerRecord> container;
  std::optional<store::ImageRecord> image;
};
/// All that differs between two file systems, sorted by path: how `newer` has it, seen from `older`. Of a directory
/// that only `newer` has, everything is told; of one that only `older` has, or where a file has taken its place, its
/// name. A file counts as changed by its type, mode, owner, size, time, target and extended attributes; its bytes are
/// not read.
std::vector<Change> diff_between(Context& context, const DiffSide& newer, const DiffSide& older);

}  // namespace kelp::engine
