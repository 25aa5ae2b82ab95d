#include "cgroup/limits.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/text.h"

namespace kelp::cgroup {
namespace {

/// Engines write it (containerd always does) where nobody asked for a weight.
constexpr std::uint64_t kCpuSharesDefault = 1024;

class Plan {
 public:
  /// is_default: the value says what holds for a group that nobody has set anything for.
  void add(std::string file, std::string value, const char* asked, bool is_default = false) {
    LimitWrite write;
    write.controller = file.substr(0, file.find('.'));
    if (write.controller == "cgroup") write.controller.clear();
    write.lifts = is_default || value == "max";
    write.file = std::move(file);
    write.value = std::move(value);
    write.asked = std::string("linux.resources.") + asked;
    writes_.push_back(std::move(write));
  }
  /// BFQ has a file of its own, and where it is there, io.weight belongs to iocost, which is seldom set up.
  void add_io_weight(const std::string& device, std::uint64_t weight, const char* asked) {
    add("io.bfq.weight", fmt::format("{} {}", device, weight), asked);
    writes_.back().or_file = "io.weight";
    writes_.back().or_value = fmt::format("{} {}", device, io_weight_of_blkio(weight));
  }
  std::vector<LimitWrite> take() { return std::move(writes_); }

 private:
  std::vector<LimitWrite> writes_;
};

std::string max_or(std::int64_t value) { return value < 0 ? "max" : std::to_string(value); }

[[noreturn]] void not_in_v2(const char* asked, const char* instead) {
  throw_error("linux.resources.{}: cgroup v2 has no such limit{}", asked, instead);
}

void plan_memory(const spec::MemoryLimits& memory, Plan& plan) {
  if (memory.kernel && *memory.kernel > 0) not_in_v2("memory.kernel", ", kernel memory counts into memory.limit");
  if (memory.kernel_tcp && *memory.kernel_tcp > 0) not_in_v2("memory.kernelTCP", ", it counts into memory.limit");
  if (memory.swappiness) not_in_v2("memory.swappiness", " per group; see vm.swappiness of the host");
  if (memory.disable_oom_killer.value_or(false)) not_in_v2("memory.disableOOMKiller", "; set memory.high in unified");
  if (memory.limit && *memory.limit != 0) plan.add("memory.max", max_or(*memory.limit), "memory.limit");
  if (memory.reservation && *memory.reservation != 0)
    plan.add("memory.low", max_or(*memory.reservation), "memory.reservation");
  if (memory.swap && *memory.swap != 0)
    if (const auto swap = swap_max_of(*memory.swap, memory.limit.value_or(0)))
      plan.add("memory.swap.max", max_or(*swap), "memory.swap");
}

void plan_cpu(const spec::CpuLimits& cpu, Plan& plan) {
  if (cpu.realtime_runtime && *cpu.realtime_runtime != 0) not_in_v2("cpu.realtimeRuntime", "");
  if (cpu.realtime_period && *cpu.realtime_period != 0) not_in_v2("cpu.realtimePeriod", "");
  if (cpu.idle) plan.add("cpu.idle", std::to_string(*cpu.idle), "cpu.idle");
  // An idle group has no weight of its own: writing one is EINVAL.
  if (cpu.shares && *cpu.shares != 0 && cpu.idle.value_or(0) == 0)
    plan.add("cpu.weight", std::to_string(cpu_weight_of_shares(*cpu.shares)), "cpu.shares",
             *cpu.shares == kCpuSharesDefault);
  const bool has_quota = cpu.quota && *cpu.quota != 0;
  const bool has_period = cpu.period && *cpu.period != 0;
  if (has_quota || has_period) {
    const std::string quota = has_quota && *cpu.quota > 0 ? std::to_string(*cpu.quota) : "max";
    plan.add("cpu.max", has_period ? fmt::format("{} {}", quota, *cpu.period) : quota, "cpu.quota");
  }
  if (cpu.burst && *cpu.burst != 0) plan.add("cpu.max.burst", std::to_string(*cpu.burst), "cpu.burst");
  if (!cpu.cpus.empty()) plan.add("cpuset.cpus", cpu.cpus, "cpu.cpus");
  if (!cpu.mems.empty()) plan.add("cpuset.mems", cpu.mems, "cpu.mems");
}

void plan_block_io(const spec::BlockIoLimits& io, Plan& plan) {
  if ((io.leaf_weight && *io.leaf_weight != 0)) not_in_v2("blockIO.leafWeight", "");
  if (io.weight && *io.weight != 0) plan.add_io_weight("default", *io.weight, "blockIO.weight");
  for (const spec::WeightDevice& device : io.weight_device)
    if (device.weight)
      plan.add_io_weight(fmt::format("{}:{}", device.major, device.minor), *device.weight, "blockIO.weightDevice");
  const auto throttle = [&](const std::vector<spec::ThrottleDevice>& devices, const char* key, const char* asked) {
    for (const spec::ThrottleDevice& device : devices)
      plan.add("io.max",
               fmt::format("{}:{} {}={}", device.major, device.minor, key,
                           device.rate == 0 ? std::string("max") : std::to_string(device.rate)),
               asked);
  };
  throttle(io.read_bps, "rbps", "blockIO.throttleReadBpsDevice");
  throttle(io.write_bps, "wbps", "blockIO.throttleWriteBpsDevice");
  throttle(io.read_iops, "riops", "blockIO.throttleReadIOPSDevice");
  throttle(io.write_iops, "wiops", "blockIO.throttleWriteIOPSDevice");
}

void plan_unified(const spec::StringMap& unified, Plan& plan) {
  for (const auto& [file, value] : unified) {
    if (file.find('/') != std::string::npos || file.find('.') == std::string::npos || file.front() == '.')
      throw_error("linux.resources.unified: {} is no name of a cgroup file", quoted(file));
    const std::string asked = "unified." + file;
    for (const std::string& line : split(value, '\n'))
      if (!trim(line).empty()) plan.add(file, line, asked.c_str());
  }
}

}  // namespace

std::vector<LimitWrite> plan_limits(const spec::Resources& resources) {
  Plan plan;
  if (resources.memory) plan_memory(*resources.memory, plan);
  if (resources.cpu) plan_cpu(*resources.cpu, plan);
  if (resources.pids_limit)
    plan.add("pids.max", *resources.pids_limit <= 0 ? "max" : std::to_string(*resources.pids_limit), "pids.limit");
  if (resources.block_io) plan_block_io(*resources.block_io, plan);
  for (const spec::HugepageLimit& limit : resources.hugepages) {
    if (limit.page_size.empty() || limit.page_size.find('/') != std::string::npos)
      throw_error("linux.resources.hugepageLimits: {} is no page size", quoted(limit.page_size));
    plan.add(fmt::format("hugetlb.{}.max", limit.page_size), std::to_string(limit.limit), "hugepageLimits");
  }
  if (resources.network_class_id && *resources.network_class_id != 0) not_in_v2("network.classID", "");
  if (!resources.network_priorities.empty()) not_in_v2("network.priorities", "");
  for (const auto& [device, limits] : resources.rdma) {
    std::string value = device;
    if (limits.first) value += fmt::format(" hca_handle={}", *limits.first);
    if (limits.second) value += fmt::format(" hca_object={}", *limits.second);
    plan.add("rdma.max", value, "rdma");
  }
  plan_unified(resources.unified, plan);
  return plan.take();
}

bool asks_for_limits(const spec::Resources& resources) {
  const std::vector<LimitWrite> writes = plan_limits(resources);
  return std::any_of(writes.begin(), writes.end(), [](const LimitWrite& write) { return !write.lifts; });
}

std::vector<std::string> needed_controllers(const std::vector<LimitWrite>& writes) {
  std::vector<std::string> needed;
  for (const LimitWrite& write : writes)
    if (!write.controller.empty() && std::find(needed.begin(), needed.end(), write.controller) == needed.end())
      needed.push_back(write.controller);
  return needed;
}

std::string kernel_setting(std::string_view controller) {
  static constexpr std::pair<std::string_view, const char*> kSettings[] = {
      {"cpu", "CONFIG_CFS_BANDWIDTH"}, {"cpuset", "CONFIG_CPUSETS"},   {"io", "CONFIG_BLK_DEV_THROTTLING"},
      {"memory", "CONFIG_MEMCG"},      {"pids", "CONFIG_CGROUP_PIDS"}, {"hugetlb", "CONFIG_CGROUP_HUGETLB"}};
  for (const auto& [name, setting] : kSettings)
    if (name == controller) return setting;
  return fmt::format("the cgroup controller {}", controller);
}

MissingController explain_missing(std::string_view controller, std::string_view asked, const std::string& group,
                                  Lack lack) {
  MissingController missing;
  if (lack == Lack::kernel) {
    missing.text = fmt::format("{}: this kernel has no cgroup controller {}", asked, controller);
    missing.hint = fmt::format("boot a kernel with {}, without cgroup_disable={} on its command line; or leave {} out",
                               kernel_setting(controller), controller, asked);
  } else if (lack == Lack::v1) {
    missing.text = fmt::format("{}: the cgroup controller {} belongs to cgroup v1 on this host (hybrid layout)", asked,
                               controller);
    missing.hint = "boot with systemd.unified_cgroup_hierarchy=1 (cgroup v2 alone), or leave the limit out";
  } else if (group.empty()) {
    missing.text =
        fmt::format("{}: no cgroup can be made here, so the controller {} cannot be used", asked, controller);
    missing.hint = "log in with a systemd user session, or run inside a delegated cgroup: `kelp doctor` tells more";
  } else {
    missing.text = fmt::format("{}: the cgroup controller {} is not delegated to {}", asked, controller, group);
    missing.hint = fmt::format(
        "printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' | sudo install -D -m 644 /dev/stdin "
        "/etc/systemd/system/user@.service.d/delegate.conf && sudo systemctl daemon-reload, then log in again; or "
        "leave "
        "{} out",
        asked);
  }
  return missing;
}

std::uint64_t cpu_weight_of_shares(std::uint64_t shares) {
  if (shares == 0) return 0;
  const std::uint64_t bounded = std::clamp<std::uint64_t>(shares, 2, 262144);
  return 1 + (bounded - 2) * 9999 / 262142;
}

std::uint64_t io_weight_of_blkio(std::uint64_t weight) {
  if (weight == 0) return 0;
  const std::uint64_t bounded = std::clamp<std::uint64_t>(weight, 10, 1000);
  return 1 + (bounded - 10) * 9999 / 990;
}

std::optional<std::int64_t> swap_max_of(std::int64_t swap, std::int64_t memory) {
  if (swap == 0) return std::nullopt;
  if (swap < 0) return -1;
  if (memory <= 0) throw_error("linux.resources.memory.swap: {} needs memory.limit beside it", swap);
  if (swap < memory)
    throw_error("linux.resources.memory.swap: {} is memory and swap together, so it cannot be below memory.limit {}",
                swap, memory);
  return swap - memory;
}

}  // namespace kelp::cgroup
