// What containers use: from the files of their cgroups, and, where the kernel does not count there, from /proc.
#include "engine/stats.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>

#include "base/error.h"
#include "base/text.h"
#include "cgroup/cgroup.h"
#include "engine/context.h"
#include "store/containers.h"
#include "sys/procfs.h"

namespace kelp::engine {
namespace {

std::uint64_t host_memory() {
  return static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

/// The namespace's inode number, 0 when it cannot be told.
std::uint64_t namespace_of(pid_t pid, const char* kind) {
  struct stat info {};
  const std::string who = pid == 0 ? "self" : std::to_string(pid);
  return ::stat(fmt::format("/proc/{}/ns/{}", who, kind).c_str(), &info) < 0 ? 0 : info.st_ino;
}

/// Processes by their pid namespace, found in one walk for all containers, and only when one needs it.
class Processes {
 public:
  const std::vector<pid_t>& of_namespace(std::uint64_t inode) {
    if (!walked_) walk();
    return by_namespace_[inode];
  }

 private:
  void walk() {
    walked_ = true;
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir("/proc"), ::closedir);
    if (!dir) return;
    while (const dirent* entry = ::readdir(dir.get()))
      if (const auto pid = to_int(entry->d_name, 1, INT32_MAX))
        by_namespace_[namespace_of(static_cast<pid_t>(*pid), "pid")].push_back(static_cast<pid_t>(*pid));
  }
  bool walked_ = false;
  std::map<std::uint64_t, std::vector<pid_t>> by_namespace_;
};

struct ProcessSums {
  std::uint64_t user_ns = 0, system_ns = 0, memory = 0, tasks = 0;
};

ProcessSums sums_of(const std::vector<pid_t>& pids) {
  const auto tick = 1'000'000'000u / static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  ProcessSums sums;
  for (const pid_t pid : pids) {
    std::optional<std::string> text;
    try {
      text = sys::try_read_file(fmt::format("/proc/{}/stat", pid));
    } catch (const Error&) {  // hidden from us (hidepid)
    }
    const size_t end = text ? text->rfind(')') : std::string::npos;
    if (end == std::string::npos || end + 2 > text->size()) continue;
    const auto fields = split(std::string_view(*text).substr(end + 2), ' ');
    // source: proc(5); the third field is the first here
    const auto field = [&](size_t number) {
      return number - 3 < fields.size() ? static_cast<std::uint64_t>(to_int(fields[number - 3], 0).value_or(0)) : 0;
    };
    sums.user_ns += (field(14) + field(16)) * tick;
    sums.system_ns += (field(15) + field(17)) * tick;
    sums.tasks += field(20);
    sums.memory += field(24) * page;
  }
  return sums;
}

void sample_network(const store::RunState& run, std::uint64_t own_namespace, UsageSample& sample) {
  if (namespace_of(run.pid, "net") == own_namespace) return;  // the host's: not the container's own
  try {
    if (const auto text = sys::try_read_file(fmt::format("/proc/{}/net/dev", run.pid)))
      std::tie(sample.received, sample.sent) = parse_net_dev(*text);
  } catch (const Error&) {  // its process has gone
  }
}

void sample_group(const std::string& group, UsageSample& sample, cgroup::Stats& stats) {
  stats = cgroup::read_stats(group);
  if (stats.cpu) {
    sample.cpu_ns = stats.cpu->usage_us * 1000;
    sample.cpu_system_ns = stats.cpu->system_us * 1000;
  }
  if (stats.memory) {
    // What the kernel can take back at once is no use: docker's view, too.
    sample.memory = stats.memory->usage - std::min(stats.memory->usage, stats.memory->inactive_file);
    if (stats.memory->limit) sample.memory_limit = std::min(sample.memory_limit, *stats.memory->limit);
  }
  if (stats.pids) sample.pids = stats.pids->current;
  for (const auto& io : stats.io) {
    sample.read += io.read_bytes;
    sample.written += io.write_bytes;
  }
  sample.cpu_pressure = stats.cpu_pressure;
  sample.memory_pressure = stats.memory_pressure;
  sample.io_pressure = stats.io_pressure;
}

}  // namespace

std::pair<std::uint64_t, std::uint64_t> parse_net_dev(std::string_view text) {
  std::uint64_t received = 0, sent = 0;
  for (const std::string& line : split(text, '\n')) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos || trim(std::string_view(line).substr(0, colon)) == "lo") continue;
    std::vector<std::uint64_t> numbers;
    for (const std::string& word : split(std::string_view(line).substr(colon + 1), ' '))
      if (!word.empty()) numbers.push_back(static_cast<std::uint64_t>(to_int(word, 0).value_or(0)));
    if (numbers.size() < 9) continue;
    received += numbers[0];
    sent += numbers[8];
  }
  return {received, sent};
}

std::vector<UsageSample> sample_usage(Context& context, const std::vector<store::ContainerRecord>& records) {
  std::vector<UsageSample> samples;
  Processes processes;
  const std::uint64_t host_limit = host_memory(), own_network = namespace_of(0, "net"),
                      own_pids = namespace_of(0, "pid");
  for (const auto& record : records) {
    UsageSample& sample = samples.emplace_back();
    sample.id = record.id;
    sample.name = record.name;
    const auto status = store::status(context.layout, record);
    sample.running = status.run && status.run->pid != 0 &&
                     (status.status == store::Status::running || status.status == store::Status::paused ||
                      status.status == store::Status::stopping);
    if (!sample.running) continue;
    sample.started = status.run->started;
    sample.memory_limit = host_limit;
    cgroup::Stats stats;
    const std::string group = status.run->cgroup.empty() ? "" : cgroup::v2_mount() + status.run->cgroup;
    if (!group.empty()) sample_group(group, sample, stats);
    if (!stats.cpu || !stats.memory || !stats.pids) {
      sample.from_processes = true;
      const std::uint64_t inside = namespace_of(status.run->pid, "pid");
      const ProcessSums sums = sums_of(!group.empty() && cgroup::exists(group) ? cgroup::processes(group)
                                       : inside == own_pids                    ? std::vector<pid_t>{status.run->pid}
                                                                               : processes.of_namespace(inside));
      if (!stats.cpu) {
        sample.cpu_ns = sums.user_ns + sums.system_ns;
        sample.cpu_system_ns = sums.system_ns;
      }
      if (!stats.memory) sample.memory = sums.memory;
      if (!stats.pids) sample.pids = sums.tasks;
    }
    sample_network(*status.run, own_network, sample);
    sample.taken = std::chrono::system_clock::now();
  }
  return samples;
}

double cpu_percent(const UsageSample& now, const UsageSample* before) {
  const bool goes_on = before != nullptr && before->running && before->started == now.started;
  const auto since = goes_on ? before->taken : now.started;
  const double wall = std::chrono::duration<double, std::nano>(now.taken - since).count();
  const std::uint64_t used = now.cpu_ns - std::min(now.cpu_ns, goes_on ? before->cpu_ns : 0);
  return wall > 0 ? 100 * static_cast<double>(used) / wall : 0;
}

}  // namespace kelp::engine
