#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cmath>
#include <limits>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"
#include "engine/make_spec.h"

namespace kelp::engine {

namespace {

/// "PATH:N" with the device's numbers.
spec::ThrottleDevice throttle(const std::string& text, const char* option, bool bytes) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) throw_usage("{} takes PATH:RATE, not {}", option, quoted(text));
  const std::string path = text.substr(0, colon);
  const std::string rate = text.substr(colon + 1);
  struct stat info {};
  if (::stat(path.c_str(), &info) < 0) throw_errno("{} {}", option, path);
  if (!S_ISBLK(info.st_mode)) throw_usage("{}: {} is not a block device", option, path);
  const auto number = bytes ? std::optional(parse_size(rate, option)) : to_int(rate, 0);
  if (!number || *number < 0) throw_usage("{}: bad rate {}", option, quoted(rate));
  return {major(info.st_rdev), minor(info.st_rdev), static_cast<std::uint64_t>(*number)};
}

std::vector<spec::ThrottleDevice> throttles(const store::Strings& texts, const char* option, bool bytes) {
  std::vector<spec::ThrottleDevice> made;
  for (const std::string& text : texts) made.push_back(throttle(text, option, bytes));
  return made;
}

}  // namespace

std::vector<WantedLimit> wanted_limits(const store::Resources& limits) {
  std::vector<WantedLimit> wanted;
  const auto name = [&](bool set, const char* option, const char* controller) {
    if (set) wanted.push_back({option, controller});
  };
  name(limits.memory.value_or(0) > 0, "--memory", "memory");
  name(limits.memory_swap.value_or(-1) > 0, "--memory-swap", "memory");
  name(limits.memory_reservation.value_or(0) > 0, "--memory-reservation", "memory");
  name(limits.memory_swappiness.value_or(-1) >= 0, "--memory-swappiness", "memory");
  name(limits.oom_kill_disable, "--oom-kill-disable", "memory");
  name(limits.cpus.value_or(0) > 0, "--cpus", "cpu");
  name(limits.cpu_shares.value_or(0) > 0, "--cpu-shares", "cpu");
  name(limits.cpu_quota.value_or(0) > 0, "--cpu-quota", "cpu");
  name(limits.cpu_period.value_or(0) > 0, "--cpu-period", "cpu");
  name(limits.cpu_rt_period.has_value() || limits.cpu_rt_runtime.has_value(), "--cpu-rt-runtime", "cpu");
  name(limits.cpuset_cpus.has_value(), "--cpuset-cpus", "cpuset");
  name(limits.cpuset_mems.has_value(), "--cpuset-mems", "cpuset");
  name(limits.pids_limit.value_or(0) > 0, "--pids-limit", "pids");
  name(limits.blkio_weight.value_or(0) > 0, "--blkio-weight", "io");
  name(!limits.blkio_weight_device.empty(), "--blkio-weight-device", "io");
  name(!limits.device_read_bps.empty(), "--device-read-bps", "io");
  name(!limits.device_write_bps.empty(), "--device-write-bps", "io");
  name(!limits.device_read_iops.empty(), "--device-read-iops", "io");
  name(!limits.device_write_iops.empty(), "--device-write-iops", "io");
  for (const auto& [file, value] : limits.unified) {
    const std::string controller = file.substr(0, file.find('.'));
    wanted.push_back({"--cgroup-conf " + file, controller == "cgroup" ? "" : controller});
  }
  return wanted;
}

spec::Resources make_resources(const store::ContainerConfig& config, bool has_cgroup, bool can_limit_pids) {
  const store::Resources& wanted = config.resources;
  spec::Resources made;
  if (!has_cgroup) return made;
  if (wanted.memory || wanted.memory_swap || wanted.memory_reservation || wanted.memory_swappiness) {
    made.memory.emplace();
    if (wanted.memory.value_or(0) > 0) made.memory->limit = wanted.memory;  // 0: no limit
    made.memory->reservation = wanted.memory_reservation;
    made.memory->swap = wanted.memory_swap;
    if (wanted.memory && !wanted.memory_swap && *wanted.memory > 0 &&
        *wanted.memory <= std::numeric_limits<std::int64_t>::max() / 2)
      made.memory->swap = *wanted.memory * 2;  // podman's and docker's default: as much swap again
    if (wanted.memory_swappiness && *wanted.memory_swappiness >= 0)
      made.memory->swappiness = static_cast<std::uint64_t>(*wanted.memory_swappiness);
  }
  if (wanted.oom_kill_disable) {
    if (!made.memory) made.memory.emplace();
    made.memory->disable_oom_killer = true;
  }
  if (wanted.cpus || wanted.cpu_shares || wanted.cpu_quota || wanted.cpu_period || wanted.cpu_rt_period ||
      wanted.cpu_rt_runtime || wanted.cpuset_cpus || wanted.cpuset_mems) {
    spec::CpuLimits& cpu = made.cpu.emplace();
    if (wanted.cpus.value_or(0) > 0) {
      cpu.period = 100'000;
      cpu.quota = std::llround(*wanted.cpus * 100'000);
    }
    if (wanted.cpu_period) cpu.period = static_cast<std::uint64_t>(*wanted.cpu_period);
    if (wanted.cpu_quota) cpu.quota = *wanted.cpu_quota;
    if (wanted.cpu_shares) cpu.shares = static_cast<std::uint64_t>(*wanted.cpu_shares);
    if (wanted.cpu_rt_period) cpu.realtime_period = static_cast<std::uint64_t>(*wanted.cpu_rt_period);
    cpu.realtime_runtime = wanted.cpu_rt_runtime;
    cpu.cpus = wanted.cpuset_cpus.value_or("");
    cpu.mems = wanted.cpuset_mems.value_or("");
  }
  // Without a limit a fork bomb takes the whole session of the user along; podman's default.
  // Nobody asked for it, though: where the controller is not to be had, it is left out.
  made.pids_limit = wanted.pids_limit;
  if (!made.pids_limit && can_limit_pids) made.pids_limit = 2048;
  if (made.pids_limit == 0) made.pids_limit = -1;
  if (wanted.blkio_weight || !wanted.blkio_weight_device.empty() || !wanted.device_read_bps.empty() ||
      !wanted.device_write_bps.empty() || !wanted.device_read_iops.empty() || !wanted.device_write_iops.empty()) {
    spec::BlockIoLimits& io = made.block_io.emplace();
    if (wanted.blkio_weight) io.weight = static_cast<std::uint16_t>(*wanted.blkio_weight);
    for (const std::string& text : wanted.blkio_weight_device) {
      const spec::ThrottleDevice parsed = throttle(text, "--blkio-weight-device", false);
      io.weight_device.push_back({parsed.major, parsed.minor, static_cast<std::uint16_t>(parsed.rate), std::nullopt});
    }
    io.read_bps = throttles(wanted.device_read_bps, "--device-read-bps", true);
    io.write_bps = throttles(wanted.device_write_bps, "--device-write-bps", true);
    io.read_iops = throttles(wanted.device_read_iops, "--device-read-iops", false);
    io.write_iops = throttles(wanted.device_write_iops, "--device-write-iops", false);
  }
  made.unified = wanted.unified;
  return made;
}

}  // namespace kelp::engine
