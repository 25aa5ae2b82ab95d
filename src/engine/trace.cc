#include "engine/trace.h"

#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"

namespace kelp::engine {
namespace {

constexpr const char* kSteps[] = {"parse the bundle",          "create the namespaces", "set up the cgroup",
                                  "mount the root filesystem", "pivot_root into it",    "drop privileges, seccomp",
                                  "exec the command"};

/// The names that the programs give to their step()s.
struct Belongs {
  int number;
  const char* program;
  const char* part;
};
constexpr Belongs kParts[] = {
    {1, "kelp-oci", "bundle"},
    {1, "kelp-oci", "seccomp filter"},
    {2, "kelp-oci", "first process"},
    {2, "kelp-oci", "map ids"},
    {2, "kelp-oci", "join the network namespace"},
    {2, "kelp-oci", "become root of the user namespace"},
    {2, "kelp-oci", "session keyring"},
    {2, "kelp-oci", "cgroup namespace"},
    {2, "kelp-oci", "loopback interface"},
    {2, "kelp-oci", "network devices"},
    {3, "kelp", "make the cgroup"},
    {3, "kelp", "wait for the cgroup"},
    {3, "kelp-oci", "cgroup"},
    {4, "kelp", "mount the root filesystem"},
    {4, "kelp", "mount the overlays of volumes"},
    {4, "kelp", "fill volumes"},
    {4, "kelp", "bind subpaths"},
    {4, "kelp-oci", "root filesystem"},
    {5, "kelp-oci", "mounts"},
    {5, "kelp-oci", "devices"},
    {5, "kelp-oci", "terminal"},
    {5, "kelp-oci", "hostname and sysctls"},
    {5, "kelp-oci", "masked paths"},
    {5, "kelp-oci", "read-only paths"},
    {5, "kelp-oci", "read-only root"},
    {5, "kelp-oci", "pivot into the root filesystem"},
    {5, "kelp-oci", "propagation of the root filesystem"},
    {5, "kelp-oci", "working directory"},
    {5, "kelp-oci", "let go of the old root"},
    {6, "kelp-oci", "security labels"},
    {6, "kelp-oci", "resource limits"},
    {6, "kelp-oci", "privileges"},
    {7, "kelp-oci", "exec"},
};

/// Parts may lie within each other or, in two processes, beside each other.
std::int64_t time_at_work(const std::vector<TracePart>& parts) {
  std::int64_t sum = 0, seen = 0;
  for (const auto& part : parts) {
    const std::int64_t end = part.at + std::max<std::int64_t>(part.took, 0);
    sum += std::max<std::int64_t>(end - std::max(part.at, seen), 0);
    seen = std::max(seen, end);
  }
  return sum;
}

}  // namespace

int trace_step_of(const std::string& program, const std::string& part) noexcept {
  for (const auto& known : kParts)
    if (program == known.program && part == known.part) return known.number;
  return 0;
}

TraceReport make_trace_report(const std::vector<sys::TraceEntry>& entries, std::int64_t began, std::int64_t ended) {
  TraceReport report;
  report.total = ended - began;
  int number = 0;
  for (const char* name : kSteps) report.steps.push_back({++number, name, 0, 0, {}});
  for (const auto& entry : entries) {
    const int step = trace_step_of(entry.program, entry.name);
    auto& parts = step == 0 ? report.others : report.steps[static_cast<size_t>(step) - 1].parts;
    parts.push_back({entry.program, entry.name, entry.started - began, entry.took, entry.failed});
  }
  // Outer ones before those within them.
  const auto in_time = [](const TracePart& a, const TracePart& b) {
    return a.at != b.at ? a.at < b.at : a.took > b.took;
  };
  std::stable_sort(report.others.begin(), report.others.end(), in_time);
  for (auto& step : report.steps) {
    std::stable_sort(step.parts.begin(), step.parts.end(), in_time);
    if (!step.parts.empty()) step.at = step.parts.front().at;
    step.took = time_at_work(step.parts);
  }
  return report;
}

StartTrace::StartTrace() : began_(detail::step_clock_micros()), ours_(sys::TracePage::anonymous()) {
  ours_.listen("kelp");
}

std::string StartTrace::share(const std::string& directory) {
  path_ = directory + "/trace";
  theirs_.emplace(sys::TracePage::file(path_, true));
  return path_;
}

TraceReport StartTrace::finish() noexcept {
  const std::int64_t ended = detail::step_clock_micros();
  if (!path_.empty()) ::unlink(path_.c_str());
  auto entries = ours_.entries();
  if (theirs_)
    for (auto& entry : theirs_->entries()) entries.push_back(std::move(entry));
  return make_trace_report(entries, began_, ended);
}

}  // namespace kelp::engine
