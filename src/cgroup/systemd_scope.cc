#include "cgroup/systemd_scope.h"

#include <unistd.h>

#include "base/error.h"
#include "base/text.h"
#include "cgroup/cgroupfs.h"
#include "sys/sd_bus.h"

namespace kelp::cgroup {

std::string slice_path(const std::string& slice) {
  const std::string stem = slice.substr(0, slice.size() - std::string_view(".slice").size());
  if (stem == "-") return "";
  std::string path;
  for (size_t dash = stem.find('-'); dash != std::string::npos; dash = stem.find('-', dash + 1))
    path += stem.substr(0, dash) + ".slice/";
  return path + slice;
}

std::string slice_of(const Place& place) { return place.parent.substr(place.parent.rfind('/') + 1); }

std::string scope_name(const std::string& id) { return "kelp-" + id + ".scope"; }

Place systemd_place(const std::string& slice) {
  Place place;
  if (v2_mount() != "/sys/fs/cgroup") {
    place.reason = "this host has no pure cgroup v2 hierarchy";
    place.hint = "boot with systemd.unified_cgroup_hierarchy=1";
    return place;
  }
  if (!sys::systemd_bus_present()) {
    place.reason = "there is no systemd user session";
    place.hint = fmt::format("sudo loginctl enable-linger {}, then log in again", ::geteuid());
    return place;
  }
  // The manager's group is where logind puts it; asking over the bus is for hosts that do it otherwise.
  std::string base;
  if (::geteuid() != 0) {
    const std::string uid = std::to_string(::geteuid());
    base = fmt::format("/user.slice/user-{}.slice/user@{}.service", uid, uid);
    if (!exists(v2_mount() + base)) {
      try {
        base = sys::Systemd::connect().control_group();
      } catch (const Error& error) {
        place.reason = error.message();
        return place;
      }
    }
  }
  place.controllers = controllers_of(v2_mount() + base);
  place.parent = v2_mount() + base + "/" +
                 slice_path(!slice.empty()     ? slice
                            : ::geteuid() == 0 ? "machine.slice"
                                               : "user.slice");
  place.manager = Manager::systemd;
  return place;
}

}  // namespace kelp::cgroup
