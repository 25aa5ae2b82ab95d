#include "cli/trace.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

namespace kelp::cli {
namespace {

// In the order of the documentation, not of the alphabet.
using Ordered = nlohmann::ordered_json;

Ordered json_of(const std::vector<engine::TracePart>& parts) {
  Ordered list = Ordered::array();
  for (const auto& part : parts) {
    Ordered one{{"program", part.program}, {"name", part.name}, {"at_us", part.at}};
    one["took_us"] = part.took < 0 ? Ordered() : Ordered(part.took);
    if (part.failed) one["failed"] = true;
    list.push_back(std::move(one));
  }
  return list;
}

std::string json_text(const engine::TraceReport& report) {
  Ordered document{{"total_us", report.total}};
  document["steps"] = Ordered::array();
  for (const auto& step : report.steps) {
    Ordered one{{"step", step.number}, {"name", step.name}};
    one["at_us"] = step.parts.empty() ? Ordered() : Ordered(step.at);
    one["took_us"] = step.parts.empty() ? Ordered() : Ordered(step.took);
    one["parts"] = json_of(step.parts);
    document["steps"].push_back(std::move(one));
  }
  document["others"] = json_of(report.others);
  return document.dump() + "\n";
}

std::string part_line(const engine::TracePart& part) {
  const std::string took = part.took < 0 ? "-" : std::to_string(part.took);
  return fmt::format("{:>9} {:>9}     {}: {}{}\n", part.at, took, part.program, part.name,
                     part.failed ? " (failed)" : "");
}

}  // namespace

std::string render_trace(const engine::TraceReport& report, bool json) {
  if (json) return json_text(report);
  std::string text = fmt::format("{:>9} {:>9}  {}\n", "AT (us)", "TOOK (us)", "STEP");
  for (const auto& step : report.steps) {
    if (step.parts.empty()) {
      text += fmt::format("{:>9} {:>9}  {} {}\n", "-", "-", step.number, step.name);
      continue;
    }
    text += fmt::format("{:>9} {:>9}  {} {}\n", step.at, step.took, step.number, step.name);
    for (const auto& part : step.parts) text += part_line(part);
  }
  text += fmt::format("{:>9} {:>9}  beside the seven\n", "", "");
  for (const auto& part : report.others) text += part_line(part);
  text += fmt::format("{:>9} {:>9}  in all\n", "", report.total);
  return text;
}

}  // namespace kelp::cli
