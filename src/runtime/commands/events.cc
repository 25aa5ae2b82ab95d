#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"
#include "cgroup/stats.h"
#include "runtime/commands/commands.h"
#include "runtime/commands/print.h"
#include "runtime/container.h"
#include "spec/json_writer.h"

namespace kelp::runtime {
namespace {

constexpr std::array kOptions = {
    OptionSpec{"stats", 0, nullptr, "print what the container has used once, and end"},
    OptionSpec{"interval", 0, "TIME", "time between two prints (default 5s)"},
};

constexpr std::uint64_t kNsPerUs = 1000;

void write_memory(spec::JsonWriter& out, const cgroup::Stats::Memory& memory) {
  const auto number_of = [](const std::optional<std::uint64_t>& limit) { return limit.value_or(UINT64_MAX); };
  const auto empty = [&](const char* name) {
    out.key(name).begin_object().member("limit", 0).member("failcnt", 0).end_object();
  };
  out.key("memory").begin_object().member("cache", memory.file);
  out.key("usage").begin_object().member("limit", number_of(memory.limit)).member("usage", memory.usage);
  if (memory.peak != 0) out.member("max", memory.peak);
  out.member("failcnt", memory.max_events).end_object();
  out.key("swap").begin_object().member("limit", number_of(memory.swap_limit));
  out.member("usage", memory.usage + memory.swap).member("failcnt", 0).end_object();
  empty("kernel");
  empty("kernelTCP");
  out.key("raw").begin_object().member("anon", memory.anon).member("file", memory.file);
  out.member("inactive_file", memory.inactive_file).end_object().end_object();
}

void write_io(spec::JsonWriter& out, const std::vector<cgroup::Stats::Io>& devices) {
  const auto entry = [&](const cgroup::Stats::Io& io, const char* op, std::uint64_t value) {
    out.begin_object().member("major", io.major).member("minor", io.minor).member("op", op);
    out.member("value", value).end_object();
  };
  out.key("blkio").begin_object();
  if (!devices.empty()) {
    out.key("ioServiceBytesRecursive").begin_array();
    for (const cgroup::Stats::Io& io : devices) {
      entry(io, "Read", io.read_bytes);
      entry(io, "Write", io.write_bytes);
    }
    out.end_array().key("ioServicedRecursive").begin_array();
    for (const cgroup::Stats::Io& io : devices) {
      entry(io, "Read", io.read_ops);
      entry(io, "Write", io.write_ops);
    }
    out.end_array();
  }
  out.end_object();
}

/// One line, in the words of runc's events.
std::string stats_line(const std::string& id, const cgroup::Stats& stats) {
  spec::JsonWriter out(2048);
  const cgroup::Stats::Cpu cpu = stats.cpu.value_or(cgroup::Stats::Cpu{});
  out.begin_object().member("type", "stats").member("id", id).key("data").begin_object();
  out.key("cpu").begin_object().key("usage").begin_object().member("total", cpu.usage_us * kNsPerUs);
  out.member("kernel", cpu.system_us * kNsPerUs).member("user", cpu.user_us * kNsPerUs).end_object();
  out.key("throttling").begin_object();
  if (cpu.periods != 0) out.member("periods", cpu.periods);
  if (cpu.throttled_periods != 0) out.member("throttledPeriods", cpu.throttled_periods);
  if (cpu.throttled_us != 0) out.member("throttledTime", cpu.throttled_us * kNsPerUs);
  out.end_object().end_object().key("cpuset").begin_object().end_object();
  write_memory(out, stats.memory.value_or(cgroup::Stats::Memory{}));
  out.key("pids").begin_object();
  if (stats.pids) {
    out.member("current", stats.pids->current);
    if (stats.pids->limit) out.member("limit", *stats.pids->limit);
  }
  out.end_object();
  write_io(out, stats.io);
  out.key("hugetlb").begin_object().end_object().key("intel_rdt").begin_object().end_object();
  // Interfaces are not the runtime's.
  std::string text = out.end_object().end_object().take();
  text.replace(text.size() - 2, 2, ",\"network_interfaces\":null}}\n");
  return text;
}

/// Prints until the container ends: stats at every interval, "oom" as soon as the kernel has killed for memory.
void follow(const Container& container, const Record& record, int interval_ms) {
  const Fd first = container.pidfd(record);
  const Fd memory(::open((record.cgroup + "/memory.events").c_str(), O_RDONLY | O_CLOEXEC));
  std::uint64_t kills = cgroup::oom_kills(record.cgroup);
  // The file must have been read for a change of it to wake us.
  const auto drain = [&] {
    char text[512];
    if (memory) (void)!::pread(memory.get(), text, sizeof text, 0);
  };
  using Clock = std::chrono::steady_clock;
  auto due = Clock::now() + std::chrono::milliseconds(interval_ms);
  pollfd polls[2] = {{first.get(), POLLIN, 0}, {memory.get(), POLLPRI, 0}};
  while (first) {
    drain();
    const std::uint64_t now = cgroup::oom_kills(record.cgroup);
    if (now > kills) print(fmt::format("{{\"type\":\"oom\",\"id\":\"{}\"}}\n", container.id()));
    kills = std::max(kills, now);
    if (polls[0].revents != 0) return;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(due - Clock::now()).count();
    if (left <= 0) {
      print(stats_line(container.id(), cgroup::read_stats(record.cgroup)));
      due += std::chrono::milliseconds(interval_ms);
      continue;
    }
    if (::poll(polls, 2, static_cast<int>(left)) < 0 && errno != EINTR) throw_errno("wait for events");
  }
}

int events(const Call& call) {
  std::int64_t interval_ms = 5000;
  if (call.options.has("interval")) {
    interval_ms = std::chrono::duration_cast<std::chrono::milliseconds>(
                      parse_duration(call.options.value("interval"), "option --interval"))
                      .count();
    if (interval_ms <= 0) throw_usage("option --interval: it must be more than nothing");
  }
  const Container container = Container::open(call.global.root, call.words[0]);
  const Record record = container.require();
  if (container.status(record) == Status::stopped) throw_error("container with id {} is not running", container.id());
  if (record.cgroup.empty())
    throw Error("the container has no cgroup of its own, so nothing counts what it uses")
        .with_hint("it needs a cgroup v2 group delegated to the caller when the container is created");
  if (call.options.flag("stats")) {
    print(stats_line(container.id(), cgroup::read_stats(record.cgroup)));
    return 0;
  }
  follow(container, record, static_cast<int>(std::min<std::int64_t>(interval_ms, INT32_MAX)));
  return 0;
}

}  // namespace

const Command kEvents = {
    "events", "ID", "print what a container uses, and when it runs out of memory", kOptions, events, 1, 1};

}  // namespace kelp::runtime
