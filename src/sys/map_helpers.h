#pragma once

#include <sys/types.h>

#include <memory>

#include "sys/idmap.h"

namespace kelp::sys {

/// The ids of a freshly cloned child being mapped while the caller does something else: newuidmap and newgidmap take
/// more than a millisecond. Arguments and errors as of write_id_maps(), which is the same in one step. Destroyed before
/// finish() it ends the helpers.
class MapHelpers {
 public:
  MapHelpers(pid_t child, const IdMaps& maps);
  ~MapHelpers();
  MapHelpers(MapHelpers&&) noexcept;
  MapHelpers& operator=(MapHelpers&&) noexcept;

  /// Waits until both maps are written.
  void finish();

 private:
  struct Running;
  std::unique_ptr<Running> running_;
};

}  // namespace kelp::sys
