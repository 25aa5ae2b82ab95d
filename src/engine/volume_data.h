#pragma once

#include <string>

#include "store/volumes.h"

namespace kelp::engine {

struct Context;

/// The files of a volume as a tar archive. output "" = standard output.
void export_volume(Context& context, const store::VolumeRecord& volume, const std::string& output);
/// A tar archive, compressed or not, into a volume: what has the same name is replaced, the rest stays.
void import_volume(Context& context, store::VolumeRecord volume, int archive_fd);

}  // namespace kelp::engine
