#pragma once

#include <string>
#include <vector>

#include "store/container_record.h"

namespace kelp::store {
struct ImageRecord;
}

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

}  // namespace kelp::engine
