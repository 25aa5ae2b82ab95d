#include <chrono>
#include <ctime>
#include <limits>
#include <memory>
#include <optional>

#include <fmt/format.h>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/registry_options.h"
#include "engine/store_care.h"

namespace kelp::cli {
namespace {

struct VerifyCommand {
  engine::RegistryAccess access;
  bool repair = false, quiet = false;
};

int verify(Invocation& invocation, const VerifyCommand& values) {
  ProgressView progress(values.quiet || !stderr_is_terminal());
  const auto report = engine::verify_store(invocation.context, values.repair, values.access, progress.callback());
  progress.finish();
  std::string out;
  size_t left = 0;
  for (const auto& problem : report.problems) {
    out += fmt::format("{} {}: {}", problem.kind, problem.subject, printable(problem.what));
    if (problem.repaired) {
      out += " (repaired)";
    } else {
      ++left;
      if (!problem.why_not.empty()) out += " (not repaired: " + printable(problem.why_not) + ")";
    }
    out += '\n';
  }
  if (!values.quiet) {
    out +=
        fmt::format("{} images, {} blobs ({}), {} unpacked layers: {}\n", report.images, report.blobs,
                    human_size(report.bytes), report.layers, left == 0 ? "all good" : fmt::format("{} damaged", left));
    if (!report.orphans.empty()) {
      out += fmt::format("{} that nothing needs; kelp store gc takes them away\n", report.orphans.size());
    }
  }
  print(out);
  if (left > 0) {
    throw Error(fmt::format("the store is damaged in {} places", left), 1)
        .with_hint(values.repair ? "what could not be fetched again: kelp rmi the image, or pull it where it is"
                                 : "kelp store verify --repair");
  }
  return 0;
}

struct CollectCommand {
  bool layers = false;
  std::string layers_older_than;
};

std::optional<std::time_t> unused_since(const CollectCommand& values) {
  if (values.layers) return std::numeric_limits<std::time_t>::max();
  if (values.layers_older_than.empty()) return std::nullopt;
  const auto age = parse_duration(values.layers_older_than, "--layers-older-than");
  if (age.count() < 0) throw_usage("--layers-older-than {}: a time must not be negative", values.layers_older_than);
  return std::chrono::system_clock::to_time_t(std::chrono::system_clock::now() -
                                              std::chrono::duration_cast<std::chrono::system_clock::duration>(age));
}

}  // namespace

Action define_store_verify(OptionSet& options) {
  auto values = std::make_shared<VerifyCommand>();
  options.flag("repair", values->repair, "fetch and unpack again what is damaged");
  options.flag("quiet,q", values->quiet, "print damage only");
  add_access_options(options, values->access);
  options.describe(
      "Reads everything: each blob against its digest, each unpacked layer, file by file, against its blob.");
  return [values](Invocation& invocation) { return verify(invocation, *values); };
}

Action define_store_gc(OptionSet& options) {
  auto values = std::make_shared<CollectCommand>();
  options.flag("layers", values->layers,
               "also unpacked layers that no container stands on; they come back from their blobs");
  options.text("layers-older-than", values->layers_older_than, "TIME",
               "as --layers, of images that no container was made from for that long (720h)");
  options.describe("Removes what nothing reaches, what killed pulls and builds have left included.");
  return [values](Invocation& invocation) {
    const auto report = engine::collect_garbage(invocation.context, unused_since(*values));
    print_line(fmt::format("Reclaimed {} ({} blobs, {} unpacked layers)", human_size(report.bytes), report.blobs,
                           report.layers));
    return 0;
  };
}

}  // namespace kelp::cli
