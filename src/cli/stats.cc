#include "engine/stats.h"

#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/container_select.h"
#include "cli/output.h"
#include "store/containers.h"

namespace kelp::cli {
namespace {

struct StatsCommand {
  bool all = false, latest = false, no_reset = false, no_stream = false, no_trunc = false;
  unsigned interval = 5;
  std::string format;
};

using engine::UsageSample;
using Samples = std::vector<UsageSample>;

/// Powers of 1000 and four digits: "49.15kB".
std::string decimal_size(std::uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB", "PB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1000 && unit + 1 < std::size(kUnits); ++unit) value /= 1000;
  return fmt::format("{:.4g}{}", value, kUnits[unit]);
}

std::string pair_text(std::uint64_t first, std::uint64_t second) {
  return decimal_size(first) + " / " + decimal_size(second);
}

/// Powers of 1024, as podman's MemUsageBytes: "1.5MiB".
std::string binary_size(std::uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  return fmt::format("{:.4g}{}", value, kUnits[unit]);
}

std::string percent(double value) { return fmt::format("{:.2f}%", value); }

/// As Go prints a duration, rounded to microseconds: "23.994ms", "1m2.5s".
std::string duration_text(std::chrono::nanoseconds time) {
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(time).count();
  if (us == 0) return "0s";
  if (us < 1000) return fmt::format("{}µs", us);
  const auto decimals = [](double value) {
    std::string text = fmt::format("{:.6f}", value);
    text.erase(text.find_last_not_of('0') + 1);
    if (text.back() == '.') text.pop_back();
    return text;
  };
  if (us < 1'000'000) return decimals(static_cast<double>(us) / 1e3) + "ms";
  const auto minutes = us / 60'000'000;
  std::string text;
  if (minutes >= 60) text += fmt::format("{}h", minutes / 60);
  if (minutes > 0) text += fmt::format("{}m", minutes % 60);
  return text + decimals(static_cast<double>(us % 60'000'000) / 1e6) + "s";
}

Json pressure_json(const std::optional<cgroup::Stats::Pressure>& pressure) {
  if (!pressure) return nullptr;
  return {{"some",
           {{"avg10", pressure->some10},
            {"avg60", pressure->some60},
            {"avg300", pressure->some300},
            {"total", pressure->some_us}}},
          {"full",
           {{"avg10", pressure->full10},
            {"avg60", pressure->full60},
            {"avg300", pressure->full300},
            {"total", pressure->full_us}}}};
}

std::string pressure_text(const std::optional<cgroup::Stats::Pressure>& pressure) {
  return pressure ? fmt::format("{:.2f}%", pressure->some10) : "--";
}

/// All that a template can name. source: podman-stats(1); the pressures are ours
Json template_row(const UsageSample& now, const UsageSample* before, bool whole_id) {
  const double memory =
      now.memory_limit == 0 ? 0 : 100 * static_cast<double>(now.memory) / static_cast<double>(now.memory_limit);
  const double cpu = now.running ? engine::cpu_percent(now, before) : 0;
  const double average = now.running ? engine::cpu_percent(now, nullptr) : 0;
  Json json;
  json["ID"] = whole_id ? now.id : now.id.substr(0, 12);
  json["ContainerID"] = now.id;
  json["Name"] = now.name;
  json["CPUPerc"] = percent(cpu);
  json["CPU"] = cpu;
  json["AvgCPU"] = percent(average);
  json["CPUNano"] = now.cpu_ns;
  json["CPUSystemNano"] = now.cpu_system_ns;
  json["CPUTime"] = duration_text(std::chrono::nanoseconds(now.cpu_ns));
  json["MemUsage"] = pair_text(now.memory, now.memory_limit);
  json["MemUsageBytes"] = binary_size(now.memory) + " / " + binary_size(now.memory_limit);
  json["MemPerc"] = percent(memory);
  json["MemLimit"] = now.memory_limit;
  json["NetIO"] = pair_text(now.received, now.sent);
  json["NetInput"] = now.received;
  json["NetOutput"] = now.sent;
  json["BlockIO"] = pair_text(now.read, now.written);
  json["BlockInput"] = now.read;
  json["BlockOutput"] = now.written;
  json["PIDS"] = fmt::format("{}", now.pids);
  json["PIDs"] = now.pids;
  const auto up = duration_text(now.running ? now.taken - now.started : std::chrono::nanoseconds(0));
  json["Up"] = up;
  json["UpTime"] = up;
  json["Duration"] = now.cpu_ns;
  json["SystemNano"] = std::chrono::duration_cast<std::chrono::nanoseconds>(now.taken.time_since_epoch()).count();
  json["CPUPressure"] = pressure_text(now.cpu_pressure);
  json["MemPressure"] = pressure_text(now.memory_pressure);
  json["IOPressure"] = pressure_text(now.io_pressure);
  return json;
}

/// One object of --format json, with podman's names; further ones where the kernel counts pressure.
Json json_row(const UsageSample& now, const Json& row) {
  Json json = {{"id", row["ID"]},
               {"name", now.name},
               {"cpu_time", row["CPUTime"]},
               {"cpu_percent", row["CPUPerc"]},
               {"avg_cpu", row["AvgCPU"]},
               {"mem_usage", row["MemUsage"]},
               {"mem_percent", row["MemPerc"]},
               {"net_io", row["NetIO"]},
               {"block_io", row["BlockIO"]},
               {"pids", row["PIDS"]}};
  if (now.cpu_pressure || now.memory_pressure || now.io_pressure)
    json["pressure"] = {{"cpu", pressure_json(now.cpu_pressure)},
                        {"memory", pressure_json(now.memory_pressure)},
                        {"io", pressure_json(now.io_pressure)}};
  return json;
}

/// before: by id, of the round before this one
std::string render(const Samples& samples, const std::map<std::string, UsageSample>& before,
                   const StatsCommand& values) {
  Json rows = Json::array(), json = Json::array();
  for (const auto& sample : samples) {
    const auto earlier = before.find(sample.id);
    rows.push_back(template_row(sample, earlier == before.end() ? nullptr : &earlier->second, values.no_trunc));
    json.push_back(json_row(sample, rows.back()));
  }
  ListFormat how;
  how.format = values.format;
  how.columns = {{"ID", "ID"},
                 {"Name", "NAME"},
                 {"CPUPerc", "CPU %"},
                 {"MemUsage", "MEM USAGE / LIMIT"},
                 {"MemPerc", "MEM %"},
                 {"NetIO", "NET IO"},
                 {"BlockIO", "BLOCK IO"},
                 {"PIDS", "PIDS"},
                 {"CPUTime", "CPU TIME"},
                 {"AvgCPU", "AVG CPU %"}};
  how.headings = {{"MemUsageBytes", "MEM USAGE / LIMIT"},
                  {"UpTime", "UP TIME"},
                  {"CPUPressure", "CPU PRESSURE"},
                  {"MemPressure", "MEM PRESSURE"},
                  {"IOPressure", "IO PRESSURE"}};
  return render_list(how, rows, &json);
}

std::vector<store::ContainerRecord> chosen(Invocation& invocation, const StatsCommand& values) {
  const auto& layout = invocation.context.layout;
  std::vector<store::ContainerRecord> records;
  for (const auto& name : invocation.arguments) records.push_back(store::get(layout, name));
  if (values.latest) records.push_back(latest_container(invocation));
  if (!records.empty()) return records;
  records = store::list(layout);
  if (!values.all)
    std::erase_if(records, [&](const auto& record) {
      const auto status = store::status(layout, record).status;
      return status != store::Status::running && status != store::Status::paused;
    });
  return records;
}

int stats(Invocation& invocation, const StatsCommand& values) {
  if ((values.all ? 1 : 0) + (values.latest ? 1 : 0) + (invocation.arguments.empty() ? 0 : 1) > 1)
    throw_usage("{}: names, --all and --latest exclude each other", invocation.command);
  const bool follows_names = values.latest || !invocation.arguments.empty();
  std::vector<store::ContainerRecord> records = chosen(invocation, values);
  std::map<std::string, UsageSample> before;
  for (;;) {
    const Samples samples = engine::sample_usage(invocation.context, records);
    std::string text = render(samples, before, values);
    if (!values.no_stream && !values.no_reset && stdout_is_terminal()) text.insert(0, "\033[H\033[2J");
    print(text);
    const bool over = follows_names && std::none_of(samples.begin(), samples.end(),
                                                    [](const UsageSample& sample) { return sample.running; });
    if (values.no_stream || over) return 0;
    before.clear();
    for (const auto& sample : samples) before.emplace(sample.id, sample);
    ::sleep(values.interval);
    if (!follows_names) records = chosen(invocation, values);
  }
}

}  // namespace

Action define_stats(OptionSet& options) {
  auto values = std::make_shared<StatsCommand>();
  options.arguments("[CONTAINER...]", 0, -1, Complete::running);
  options.flag("all,a", values->all, "show containers that do not run, too");
  add_latest(options, values->latest);
  options.text("format", values->format, "TEMPLATE", "print with a Go template, or json");
  options.number("interval,i", values->interval, "SECONDS", "time between two samples").shows("5");
  options.flag("no-reset", values->no_reset, "do not clear the screen between samples");
  options.flag("no-stream", values->no_stream, "print one sample and end");
  options.flag("no-trunc", values->no_trunc, "show whole IDs");
  options.describe(
      "CPU % is of one CPU, in the first sample since the start. Where the kernel counts pressure (PSI), templates "
      "have "
      "CPUPressure, MemPressure and IOPressure, and json the key pressure.",
      "kelp stats --no-stream\nkelp stats --format 'table {{.Name}}\\t{{.MemUsage}}\\t{{.IOPressure}}' web");
  return [values](Invocation& invocation) { return stats(invocation, *values); };
}

}  // namespace kelp::cli
