#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kelp::sys {

/// Bit number of "CAP_NET_ADMIN", "NET_ADMIN", "cap_net_admin" …; nullopt for an unknown name.
/// source: capabilities(7), linux/capability.h
std::optional<int> capability_from_name(std::string_view name);
/// "CAP_NET_ADMIN"; "CAP_<n>" for a bit without a name.
std::string capability_name(int bit);
/// All names in bit order, with CAP_.
const std::vector<std::string>& capability_names();

/// One bit per capability, bit n = capability n.
struct CapSets {
  std::uint64_t bounding = 0, effective = 0, permitted = 0, inheritable = 0, ambient = 0;
  bool operator==(const CapSets&) const = default;
};

/// Bits that this kernel knows (/proc/sys/kernel/cap_last_cap, else by trying); read once.
std::uint64_t known_caps();
/// Effective, permitted and inheritable set of this process; the other two are left empty.
CapSets current_caps();
/// All five sets of this process: two system calls for each capability more.
CapSets all_current_caps();

/// Drops every bounding bit that is not in `keep`. Needs CAP_SETPCAP. throws SysError.
void drop_bounding(std::uint64_t keep);
/// capset(2). throws SysError.
void set_caps(std::uint64_t effective, std::uint64_t permitted, std::uint64_t inheritable);
/// Clears the ambient set and raises the given bits, which must be permitted and inheritable. throws SysError.
void set_ambient(std::uint64_t ambient);

}  // namespace kelp::sys
