#include "engine/doctor.h"

#include <algorithm>
#include <memory>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/output.h"

namespace kelp::cli {
namespace {

using engine::Finding;
using engine::Verdict;

struct DoctorCommand {
  std::string format;
  engine::DoctorOptions options;
};

const char* sign(Verdict verdict) { return verdict == Verdict::good ? "✓" : verdict == Verdict::less ? "!" : "✗"; }

/// A line for each finding, the command that mends it below, and what all of it comes to.
std::string as_text(const std::vector<Finding>& findings, const std::string& level) {
  size_t width = 0;
  for (const Finding& finding : findings) width = std::max(width, finding.name.size());
  std::string out;
  size_t missing = 0, less = 0;
  for (const Finding& finding : findings) {
    out += fmt::format("{} {:<{}}  {}\n", sign(finding.verdict), finding.name, width, printable(finding.text));
    if (!finding.fix.empty()) out += fmt::format("  {:<{}}  → {}\n", "", width, printable(finding.fix));
    missing += finding.verdict == Verdict::missing ? 1 : 0;
    less += finding.verdict == Verdict::less ? 1 : 0;
  }
  const char* conclusion = missing > 0 ? "containers cannot be run here"
                           : less > 0  ? "containers run, with less than everything"
                                       : "nothing is missing";
  return out + fmt::format("level: {}; {}\n", level, conclusion);
}

Json as_json(const std::vector<Finding>& findings) {
  Json rows = Json::array();
  for (const Finding& finding : findings)
    rows.push_back({{"Name", finding.name},
                    {"Verdict", engine::verdict_name(finding.verdict)},
                    {"Text", finding.text},
                    {"Fix", finding.fix}});
  return rows;
}

}  // namespace

Action define_doctor(OptionSet& options) {
  auto values = std::make_shared<DoctorCommand>();
  options.arguments("[REGISTRY...]", 0, -1);
  options.describe(
      "Tries what containers need, and prints a line for each requirement: ✓ it is there, ! kelp works without it but "
      "with "
      "less, ✗ containers cannot be run; then the command that mends it. The exit status is 1 when there is a ✗. "
      "Nothing is sent to the network unless --registries or a REGISTRY is given.");
  options.text("format,f", values->format, "FORMAT", "json or a Go template for each line");
  options.flag("registries", values->options.registries,
               "also greet the registries that short names are looked for in");
  return [values](Invocation& invocation) {
    values->options.asked = invocation.arguments;
    const auto findings = engine::examine_host(invocation.context, values->options);
    const std::string level = engine::host_level(invocation.context);
    if (values->format.empty()) {
      print(as_text(findings, level));
    } else if (values->format == "json") {
      print(pretty_json(Json{{"Level", level}, {"Findings", as_json(findings)}}));
    } else {
      print(render_list({.format = values->format}, as_json(findings), nullptr));
    }
    const bool missing = std::any_of(findings.begin(), findings.end(),
                                     [](const Finding& finding) { return finding.verdict == Verdict::missing; });
    return missing ? 1 : 0;
  };
}

}  // namespace kelp::cli
