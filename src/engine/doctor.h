#pragma once

#include <string>
#include <vector>

namespace kelp::engine {

struct Context;

enum class Verdict {
  good,     ///< ✓
  less,     ///< ! kelp works, with less than everything
  missing,  ///< ✗ containers cannot be run
};
const char* verdict_name(Verdict verdict) noexcept;  ///< "ok", "warning", "error"

/// What was found out about one requirement.
///
/// text  one line: what is there, or what is missing and what that means
/// fix   the command that mends it; "" with a good verdict
struct Finding {
  std::string name;
  Verdict verdict = Verdict::good;
  std::string text, fix;
};

struct DoctorOptions {
  bool registries = false;         ///< also ask the registries that short names are looked for in
  std::vector<std::string> asked;  ///< these instead
};

/// Everything that a host must or may have, each found out by trying where that is possible; in the order of the steps
/// of a start. Never throws for what it finds: a trial that fails is a finding.
std::vector<Finding> examine_host(Context& context, const DoctorOptions& options);

/// ARCHITECTURE.md, "Levels": "full", or what it is less, "single-id, no tun".
std::string host_level(Context& context);

}  // namespace kelp::engine
