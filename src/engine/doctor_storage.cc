// Where files are kept.
#include <sys/stat.h>
#include <unistd.h>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"
#include "engine/context.h"
#include "engine/doctor_checks.h"
#include "engine/host.h"
#include "engine/storage_probe.h"
#include "sys/safe_path.h"

namespace kelp::engine {
namespace {

constexpr std::uint64_t kLittleSpace = 1ULL << 30, kFewFiles = 20000;

PackageNames fuse_package() { return {"fuse-overlayfs", "fuse-overlayfs", "fuse-overlayfs", "fuse-overlayfs"}; }

std::string fuse_device_fix() {
  if (is_nested()) return "start the outer container with --device /dev/fuse";
  return ::access("/dev/fuse", F_OK) < 0 ? "sudo modprobe fuse" : "sudo chmod 0666 /dev/fuse";
}

/// The storage is looked at once for all three of its lines.
const StorageFacts& storage(Context& context) {
  static const StorageFacts facts = probe_storage(context);
  return facts;
}

std::string fuse_fix(const StorageFacts& facts) {
  return facts.fuse_program.empty() ? install_command(fuse_package()) : fuse_device_fix();
}

}  // namespace

Finding check_storage(Context& context) {
  const StorageFacts& facts = storage(context);
  Finding finding;
  finding.text = fmt::format("{} on {}, {} of {} free", context.layout.data,
                             facts.filesystem.empty() ? "an unknown file system" : facts.filesystem,
                             human_size(facts.free), human_size(facts.total));
  const auto less = [&](const std::string& text, std::string fix) {
    if (finding.verdict != Verdict::good) return;
    finding.verdict = Verdict::less;
    finding.text += "; " + text;
    finding.fix = std::move(fix);
  };
  if (facts.network)
    less("a network file system is slow, and overlay and locks may not work on it",
         fmt::format("kelp --root /var/tmp/kelp-{} …, or XDG_DATA_HOME on a local disk", context.host().user_name));
  if (!facts.xattrs)
    less("no extended attributes (user.*), so images lose theirs and overlay cannot be used",
         "XDG_DATA_HOME on another file system: ext4, xfs and btrfs have them");
  if (facts.free < kLittleSpace) less("little space", "kelp image prune --all");
  if (facts.free_files != 0 && facts.free_files < kFewFiles)
    less(fmt::format("{} inodes are left", facts.free_files), "kelp image prune --all");
  return finding;
}

Finding check_overlay(Context& context) {
  const StorageFacts& facts = storage(context);
  if (facts.overlay_problem.empty()) return {"", Verdict::good, "native, mounted by the user himself", ""};
  if (!context.host().trial.get().usable())
    return {"", Verdict::less, "cannot be tried without user namespaces", "see user namespaces above"};
  Finding finding{"", Verdict::less, facts.overlay_problem, ""};
  if (facts.filesystem == "overlay") {
    finding.text += "; the store is itself on an overlay";
    finding.fix = fmt::format("mount a volume of the outer container at {}", context.layout.data);
  } else if (!fuse_problem(facts).empty()) {
    finding.fix = fuse_fix(facts);
  } else {
    finding.fix = "XDG_DATA_HOME on ext4, xfs or btrfs, with a kernel of 5.11 or later";
  }
  return finding;
}

Finding check_fuse(Context& context) {
  const StorageFacts& facts = storage(context);
  const std::string problem = fuse_problem(facts);
  if (problem.empty())
    return {"", Verdict::good, facts.fuse_program + (facts.overlay_problem.empty() ? ", not needed here" : ""), ""};
  if (facts.overlay_problem.empty()) return {"", Verdict::good, "not needed: the native overlay works", ""};
  return {"", Verdict::less, problem + ": every container copies its image", fuse_fix(facts)};
}

Finding check_run_directory(Context& context) {
  const std::string& run = context.layout.run;
  try {
    sys::mkdirs(run, 0700);
    if (::access(run.c_str(), W_OK) < 0) throw_errno("write to {}", run);
  } catch (Error& error) {
    error.with_hint("XDG_RUNTIME_DIR, or --runroot, names a directory that can be written to");
    throw;
  }
  if (run.find("/kelp-run-") == std::string::npos && run.find(context.layout.data + "/run-") == std::string::npos)
    return {"", Verdict::good, run, ""};
  return {"", Verdict::less,
          fmt::format("{}, since neither XDG_RUNTIME_DIR nor /run/user/{} is this user's", run, context.host().uid),
          fmt::format("log in as {} (ssh, machinectl shell) rather than with su or sudo", context.host().user_name)};
}

}  // namespace kelp::engine
