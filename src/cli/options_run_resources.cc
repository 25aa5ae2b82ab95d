#include "base/error.h"
#include "base/text.h"
#include "cli/options_run.h"

namespace kelp::cli {

void add_limit_options(OptionSet& options, store::Resources& resources) {
  options.group("Resources");
  options.size("memory,m", resources.memory, "memory limit");
  options.size("memory-swap", resources.memory_swap, "limit of memory and swap together; -1: no limit");
  options.size("memory-reservation", resources.memory_reservation, "memory that is not taken under pressure");
  options.number("memory-swappiness", resources.memory_swappiness, "N", "0 to 100; -1: as the host").shows("-1");
  options.decimal("cpus", resources.cpus, "NUMBER", "number of CPUs, fractions allowed");
  options.number("cpu-shares,c", resources.cpu_shares, "N", "relative share of CPU time");
  options.number("cpu-quota", resources.cpu_quota, "MICROSECONDS", "CPU time in each period");
  options.number("cpu-period", resources.cpu_period, "MICROSECONDS", "length of a period for --cpu-quota");
  const auto set = [&options](const char* name, std::optional<std::string>& target, const char* help) {
    options.custom(
        name, Kind::text,
        [&target](const std::string& text) {
          target.reset();
          if (!text.empty()) target = text;
        },
        "LIST", help);
  };
  set("cpuset-cpus", resources.cpuset_cpus, "CPUs to run on: 0-3,5");
  set("cpuset-mems", resources.cpuset_mems, "memory nodes to use");
  options.number("pids-limit", resources.pids_limit, "N", "number of processes; -1: no limit");
  options.custom(
      "blkio-weight", Kind::number,
      [&weight = resources.blkio_weight](const std::string& text) {
        weight = to_int(text, 0, UINT16_MAX);
        if (!weight && !text.empty()) throw_usage("--blkio-weight {}: must be a number from 10 to 1000", quoted(text));
      },
      "N", "relative share of disk time, 10 to 1000");
  options.csv("blkio-weight-device", resources.blkio_weight_device, "PATH:N", "relative share of one disk's time");
  options.csv("device-read-bps", resources.device_read_bps, "PATH:RATE", "limit of bytes read in a second");
  options.csv("device-write-bps", resources.device_write_bps, "PATH:RATE", "limit of bytes written in a second");
  options.csv("device-read-iops", resources.device_read_iops, "PATH:N", "limit of reads in a second");
  options.csv("device-write-iops", resources.device_write_iops, "PATH:N", "limit of writes in a second");
}

void add_resource_options(OptionSet& options, RunOptions& values) {
  auto& config = values.config;
  auto& resources = config.resources;
  add_limit_options(options, resources);
  options.flag("oom-kill-disable", resources.oom_kill_disable, "not with cgroup v2, which has no such setting");
  options.custom(
      "cgroup-conf", Kind::map,
      [&resources](const std::string& text) { apply_key_values(resources.unified, text, "--cgroup-conf"); },
      "FILE=VALUE", "value for a file of the cgroup");
  options.text("cgroup-parent", config.cgroup_parent, "PATH", "cgroup to make the container's in");
  options
      .text("cgroups", config.cgroups, "HOW",
            "whether the container has a cgroup of its own; no-conmon: as enabled, a monitor never has one")
      .one_of({"enabled", "disabled", "no-conmon"})
      .empty_means("enabled")
      .shows("enabled");
}

}  // namespace kelp::cli
