#include "engine/doctor.h"

#include <unistd.h>

#include "base/error.h"
#include "base/text.h"
#include "engine/context.h"
#include "engine/doctor_checks.h"
#include "engine/host.h"
#include "engine/storage_probe.h"
#include "sys/lock.h"

namespace kelp::engine {
namespace {

struct Check {
  const char* name;
  Finding (*run)(Context&);
  Verdict when_it_throws;
};

// In the order of a start: what comes first stops what follows.
constexpr Check kChecks[] = {
    {"kernel", check_kernel, Verdict::missing},
    {"programs", check_programs, Verdict::missing},
    {"run directory", check_run_directory, Verdict::missing},
    {"user namespaces", check_namespaces, Verdict::missing},
    {"id helpers", check_helpers, Verdict::less},
    {"subordinate ids", check_ranges, Verdict::less},
    {"new /proc", check_own_proc, Verdict::less},
    {"seccomp", check_seccomp, Verdict::missing},
    {"storage", check_storage, Verdict::missing},
    {"overlay", check_overlay, Verdict::less},
    {"fuse-overlayfs", check_fuse, Verdict::less},
    {"/dev/net/tun", check_tun, Verdict::less},
    {"slirp4netns", check_slirp, Verdict::less},
    {"pasta", check_pasta, Verdict::good},
    {"cgroups", check_cgroups, Verdict::less},
    {"controllers", check_controllers, Verdict::less},
    {"user bus", check_bus, Verdict::less},
    {"linger", check_linger, Verdict::less},
};

}  // namespace

const char* verdict_name(Verdict verdict) noexcept {
  return verdict == Verdict::good ? "ok" : verdict == Verdict::less ? "warning" : "error";
}

std::vector<Finding> examine_host(Context& context, const DoctorOptions& options) {
  std::vector<Finding> findings;
  for (const Check& check : kChecks) {
    Finding finding;
    try {
      finding = check.run(context);
    } catch (const Error& error) {
      finding.verdict = check.when_it_throws;
      finding.text = error.message();
      finding.fix = error.hint();
    }
    finding.name = check.name;
    findings.push_back(std::move(finding));
  }
  if (options.registries || !options.asked.empty())
    for (Finding& finding : check_registries(context, options.asked)) findings.push_back(std::move(finding));
  return findings;
}

std::string host_level(Context& context) {
  const UserNamespaceState state = user_namespace_state(context.host());
  std::vector<std::string> parts;
  if (state.level == UserNamespaceLevel::none) return "no user namespace";
  if (::access(context.layout.run.c_str(), W_OK) < 0) return "no run directory";
  if (state.level == UserNamespaceLevel::single_id) parts.emplace_back("single-id");
  if (context.host().trial.get().proc != 0) parts.emplace_back("shared /proc");
  if (!context.host().tun.get()) parts.emplace_back("no tun");
  try {
    const StorageFacts storage = probe_storage(context);
    if (storage.driver != "overlay") parts.push_back("storage by " + storage.driver);
  } catch (const Error&) {
    parts.emplace_back("no storage");
  }
  return parts.empty() ? "full" : join(parts, ", ");
}

std::string install_command(const PackageNames& names) {
  const std::string text = sys::read_small_file("/etc/os-release").value_or("");
  std::string kind;
  for (const std::string& line : split(text, '\n'))
    if (starts_with(line, "ID=") || starts_with(line, "ID_LIKE=")) kind += " " + line.substr(line.find('=') + 1);
  const auto is = [&](const char* word) { return kind.find(word) != std::string::npos; };
  if (is("debian") || is("ubuntu")) return fmt::format("sudo apt-get install {}", names.debian);
  if (is("fedora") || is("rhel") || is("centos")) return fmt::format("sudo dnf install {}", names.fedora);
  if (is("suse")) return fmt::format("sudo zypper install {}", names.fedora);
  if (is("arch")) return fmt::format("sudo pacman -S {}", names.arch);
  if (is("alpine")) return fmt::format("sudo apk add {}", names.alpine);
  return fmt::format("install the package {}", names.debian);
}

}  // namespace kelp::engine
