#include "sys/caller_id.h"

#include <unistd.h>

#include "sys/idmap.h"

namespace kelp::sys {

std::uint32_t own_uid_outside() {
  const uid_t inside = ::geteuid();
  std::uint32_t outside = 0;
  return map_out(read_id_map("/proc/self/uid_map"), inside, outside) ? outside : inside;
}

}  // namespace kelp::sys
