#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"
#include "cgroup/cgroup.h"
#include "runtime/commands/commands.h"
#include "runtime/container.h"
#include "sys/lock.h"
#include "sys/procfs.h"

namespace kelp::runtime {
namespace {

constexpr std::array kOptions = {
    OptionSpec{"resources", 'r', "FILE", "resources object (JSON) with the new limits, - for stdin; alone"},
    OptionSpec{"blkio-weight", 0, "N", "weight of block I/O, 10 to 1000"},
    OptionSpec{"cpu-period", 0, "US", "length of the CPU period"},
    OptionSpec{"cpu-quota", 0, "US", "CPU time within a period, -1 = no limit"},
    OptionSpec{"cpu-burst", 0, "US", "CPU time that may be saved up"},
    OptionSpec{"cpu-share", 0, "N", "weight of CPU time, 2 to 262144"},
    OptionSpec{"cpu-rt-period", 0, "US", "not with cgroup v2"},
    OptionSpec{"cpu-rt-runtime", 0, "US", "not with cgroup v2"},
    OptionSpec{"cpu-idle", 0, "0|1", "run only when nothing else wants to"},
    OptionSpec{"cpuset-cpus", 0, "LIST", "CPUs that may be used"},
    OptionSpec{"cpuset-mems", 0, "LIST", "memory nodes that may be used"},
    OptionSpec{"kernel-memory", 0, "SIZE", "not with cgroup v2"},
    OptionSpec{"kernel-memory-tcp", 0, "SIZE", "not with cgroup v2"},
    OptionSpec{"memory", 'm', "SIZE", "memory, -1 = no limit"},
    OptionSpec{"memory-reservation", 0, "SIZE", "memory that stays when it is scarce"},
    OptionSpec{"memory-swap", 0, "SIZE", "memory and swap together, -1 = no limit"},
    OptionSpec{"pids-limit", 0, "N", "processes, -1 = no limit"},
    OptionSpec{"l3-cache-schema", 0, "TEXT", "Intel RDT: not supported"},
    OptionSpec{"mem-bw-schema", 0, "TEXT", "Intel RDT: not supported"},
};

constexpr int kLockTimeoutMs = 10'000;

std::optional<std::int64_t> number(const Call& call, const char* name) {
  if (!call.options.has(name)) return std::nullopt;
  const auto value = to_int(call.options.value(name), -1);
  if (!value) throw_usage("option --{}: {} is no number", name, quoted(call.options.value(name)));
  return value;
}

std::optional<std::uint64_t> positive(const Call& call, const char* name) {
  const auto value = number(call, name);
  if (!value) return std::nullopt;
  if (*value < 0) throw_usage("option --{}: it cannot be negative", name);
  return static_cast<std::uint64_t>(*value);
}

std::optional<std::int64_t> bytes(const Call& call, const char* name) {
  if (!call.options.has(name)) return std::nullopt;
  const std::string text = call.options.value(name);
  return text == "-1" ? -1 : parse_size(text, fmt::format("option --{}", name));
}

spec::Resources from_options(const Call& call) {
  spec::Resources resources;
  spec::MemoryLimits memory;
  memory.limit = bytes(call, "memory");
  memory.reservation = bytes(call, "memory-reservation");
  memory.swap = bytes(call, "memory-swap");
  memory.kernel = bytes(call, "kernel-memory");
  memory.kernel_tcp = bytes(call, "kernel-memory-tcp");
  resources.memory = memory;
  spec::CpuLimits cpu;
  cpu.shares = positive(call, "cpu-share");
  cpu.quota = number(call, "cpu-quota");
  cpu.period = positive(call, "cpu-period");
  cpu.burst = positive(call, "cpu-burst");
  cpu.realtime_period = positive(call, "cpu-rt-period");
  cpu.realtime_runtime = number(call, "cpu-rt-runtime");
  cpu.idle = number(call, "cpu-idle");
  cpu.cpus = call.options.value("cpuset-cpus");
  cpu.mems = call.options.value("cpuset-mems");
  resources.cpu = cpu;
  resources.pids_limit = number(call, "pids-limit");
  if (const auto weight = positive(call, "blkio-weight")) {
    resources.block_io.emplace();
    resources.block_io->weight = static_cast<std::uint16_t>(std::min<std::uint64_t>(*weight, UINT16_MAX));
  }
  return resources;
}

/// "-" = stdin.
std::string read_input(const std::string& path) {
  std::optional<std::string> text = sys::read_small_file(path == "-" ? "/dev/stdin" : path, spec::kMaxConfigBytes);
  if (!text) throw_error("{}: {}", path, errno_text(ENOENT));
  return std::move(*text);
}

/// A limit that is made of two values keeps the one that is not given.
void keep_other_half(spec::Resources& resources, const std::string& group) {
  if (resources.cpu && resources.cpu->period && !resources.cpu->quota) {
    const auto now = sys::try_read_file(group + "/cpu.max");
    if (now) resources.cpu->quota = to_int(split(trim(*now), ' ')[0], 1).value_or(-1);
  }
  if (resources.memory && resources.memory->swap.value_or(0) > 0 && !resources.memory->limit) {
    const auto now = sys::try_read_file(group + "/memory.max");
    if (now) resources.memory->limit = to_int(trim(*now), 1);
  }
}

int update(const Call& call) {
  Container container = Container::open(call.global.root, call.words[0]);
  if (!container.lock(kLockTimeoutMs)) throw_error("container {} is in use by another command", container.id());
  const Record record = container.require();
  if (container.status(record) == Status::stopped) throw_error("cannot update a container that has stopped");
  for (const char* name : {"l3-cache-schema", "mem-bw-schema"})
    if (call.options.has(name)) throw_error("option --{}: Intel RDT is not supported", name);
  spec::Resources resources;
  if (call.options.has("resources")) {
    const std::string path = call.options.value("resources");
    try {
      resources = spec::parse_resources(read_input(path));
    } catch (Error& error) {
      error.add_context(path);
      throw;
    }
  } else {
    resources = from_options(call);
  }
  if (record.cgroup.empty())
    throw Error("cannot update the container: it has no cgroup of its own")
        .with_hint("it needs a cgroup v2 group delegated to the caller when the container is created");
  keep_other_half(resources, record.cgroup);
  cgroup::apply_limits(record.cgroup, resources);
  return 0;
}

}  // namespace

const Command kUpdate = {"update", "ID", "change the limits of a container", kOptions, update, 1, 1};

}  // namespace kelp::runtime
