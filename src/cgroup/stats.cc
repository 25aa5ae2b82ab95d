#include "cgroup/stats.h"

#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "base/text.h"
#include "sys/procfs.h"

namespace kelp::cgroup {
namespace {

std::optional<std::string> file_of(const std::string& group, const char* name) {
  try {
    return sys::try_read_file(group + "/" + name);
  } catch (const Error&) {  // a file that cannot be read is a number that is not known
    return std::nullopt;
  }
}

std::uint64_t number(std::string_view text) { return static_cast<std::uint64_t>(to_int(trim(text), 0).value_or(0)); }

std::optional<std::uint64_t> limit(const std::optional<std::string>& text) {
  if (!text || trim(*text) == "max") return std::nullopt;
  return number(*text);
}

}  // namespace

std::uint64_t stat_value(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    if (line.size() > key.size() && line[key.size()] == ' ' && starts_with(line, key))
      return number(line.substr(key.size() + 1));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return 0;
}

std::vector<Stats::Io> parse_io_stat(std::string_view text) {
  std::vector<Stats::Io> devices;
  for (const std::string& line : split(text, '\n')) {
    const std::vector<std::string> words = split(line, ' ');
    if (words.empty()) continue;
    const size_t colon = words[0].find(':');
    if (colon == std::string::npos) continue;
    Stats::Io io;
    io.major = static_cast<unsigned>(number(std::string_view(words[0]).substr(0, colon)));
    io.minor = static_cast<unsigned>(number(std::string_view(words[0]).substr(colon + 1)));
    for (size_t i = 1; i < words.size(); ++i) {
      const size_t equals = words[i].find('=');
      if (equals == std::string::npos) continue;
      const std::string_view key = std::string_view(words[i]).substr(0, equals);
      const std::uint64_t value = number(std::string_view(words[i]).substr(equals + 1));
      if (key == "rbytes") io.read_bytes = value;
      if (key == "wbytes") io.write_bytes = value;
      if (key == "rios") io.read_ops = value;
      if (key == "wios") io.write_ops = value;
    }
    devices.push_back(io);
  }
  return devices;
}

Stats::Pressure parse_pressure(std::string_view text) {
  Stats::Pressure pressure;
  for (const std::string& line : split(text, '\n')) {
    const bool some = starts_with(line, "some ");
    if (!some && !starts_with(line, "full ")) continue;
    for (const std::string& word : split(line, ' ')) {
      const size_t equals = word.find('=');
      if (equals == std::string::npos) continue;
      const std::string key = word.substr(0, equals), value = word.substr(equals + 1);
      if (key == "total") (some ? pressure.some_us : pressure.full_us) = number(value);
      const double share = std::strtod(value.c_str(), nullptr);  // the kernel writes a point, whatever the locale
      if (key == "avg10") (some ? pressure.some10 : pressure.full10) = share;
      if (key == "avg60") (some ? pressure.some60 : pressure.full60) = share;
      if (key == "avg300") (some ? pressure.some300 : pressure.full300) = share;
    }
  }
  return pressure;
}

Stats read_stats(const std::string& group) {
  Stats stats;
  const auto pressure = [&](const char* file, std::optional<Stats::Pressure>& into) {
    const auto text = file_of(group, file);
    if (text && !text->empty()) into = parse_pressure(*text);
  };
  pressure("cpu.pressure", stats.cpu_pressure);
  pressure("memory.pressure", stats.memory_pressure);
  pressure("io.pressure", stats.io_pressure);
  if (const auto text = file_of(group, "cpu.stat")) {
    Stats::Cpu cpu;
    cpu.usage_us = stat_value(*text, "usage_usec");
    cpu.user_us = stat_value(*text, "user_usec");
    cpu.system_us = stat_value(*text, "system_usec");
    cpu.periods = stat_value(*text, "nr_periods");
    cpu.throttled_periods = stat_value(*text, "nr_throttled");
    cpu.throttled_us = stat_value(*text, "throttled_usec");
    stats.cpu = cpu;
  }
  if (const auto text = file_of(group, "memory.current")) {
    Stats::Memory memory;
    memory.usage = number(*text);
    memory.peak = number(file_of(group, "memory.peak").value_or("0"));
    memory.swap = number(file_of(group, "memory.swap.current").value_or("0"));
    memory.limit = limit(file_of(group, "memory.max"));
    memory.swap_limit = limit(file_of(group, "memory.swap.max"));
    const std::string detail = file_of(group, "memory.stat").value_or("");
    memory.anon = stat_value(detail, "anon");
    memory.file = stat_value(detail, "file");
    memory.inactive_file = stat_value(detail, "inactive_file");
    const std::string events = file_of(group, "memory.events").value_or("");
    memory.oom = stat_value(events, "oom");
    memory.oom_kill = stat_value(events, "oom_kill");
    memory.max_events = stat_value(events, "max");
    stats.memory = memory;
  }
  if (const auto text = file_of(group, "pids.current")) {
    Stats::Pids pids;
    pids.current = number(*text);
    pids.limit = limit(file_of(group, "pids.max"));
    stats.pids = pids;
  }
  if (const auto text = file_of(group, "io.stat")) stats.io = parse_io_stat(*text);
  return stats;
}

std::uint64_t oom_kills(const std::string& group) {
  return stat_value(file_of(group, "memory.events").value_or(""), "oom_kill");
}

}  // namespace kelp::cgroup
