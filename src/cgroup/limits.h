#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spec/runtime_config.h"

namespace kelp::cgroup {

/// One write to a file of a cgroup v2 directory.
struct LimitWrite {
  std::string file;               ///< "memory.max"
  std::string value;              ///< "1073741824"
  std::string controller;         ///< "memory": must be in cgroup.controllers, "" = always there (cgroup.*)
  std::string asked;              ///< who asked for it, for errors: "linux.resources.memory.limit"
  bool lifts = false;             ///< "no limit", or the default: nothing is lost where the controller is not there
  std::string or_file, or_value;  ///< written instead where `file` does not exist; "" = there is no such way
};

/// linux.resources → writes, in the order in which they must be made. Pure. Throws Error for values that cannot be
/// expressed in v2 (kernel memory, realtime scheduling), naming the JSON path. Device rules are not limits.
/// source: runtime-spec config-linux.md; kernel cgroup-v2.rst; the v1 → v2 conversions of runc and crun
std::vector<LimitWrite> plan_limits(const spec::Resources& resources);

/// true when `resources` asks for anything that needs a cgroup.
bool asks_for_limits(const spec::Resources& resources);

/// Controllers that the writes need, each once, in order.
std::vector<std::string> needed_controllers(const std::vector<LimitWrite>& writes);

/// Text and hint of the error for a controller that a group has not got. Pure.
struct MissingController {
  std::string text, hint;
};
/// Why a group has not got it: nobody has handed it down, cgroup v1 holds it, or this kernel does not have it.
enum class Lack { delegation, v1, kernel };
MissingController explain_missing(std::string_view controller, std::string_view asked, const std::string& group,
                                  Lack lack);
/// The setting that a kernel with the controller is built with: "CONFIG_MEMCG".
std::string kernel_setting(std::string_view controller);

/// cpu.weight for v1's cpu.shares (2..262144 → 1..10000); 0 stays 0 (unset).
std::uint64_t cpu_weight_of_shares(std::uint64_t shares);
/// io.bfq.weight / io.weight for blkio weight (10..1000 → 1..10000).
std::uint64_t io_weight_of_blkio(std::uint64_t weight);
/// memory.swap.max for OCI's swap (memory + swap together); nullopt = leave.
std::optional<std::int64_t> swap_max_of(std::int64_t swap, std::int64_t memory);

}  // namespace kelp::cgroup
