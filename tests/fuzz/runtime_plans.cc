// A valid config.json, changed as a document, and the plans that are made of it: namespaces, mounts, limits, filter.
#include <algorithm>

#include "cgroup/limits.h"
#include "fuzz/finding.h"
#include "fuzz/json_mutator.h"
#include "runtime/plan_mounts.h"
#include "runtime/plan_namespaces.h"
#include "runtime/seccomp.h"
#include "spec/validate.h"

using namespace kelp;

KELP_FUZZ_JSON

namespace {

/// A destination is looked up below the root by its parts: none may lead up.
bool stays_below_root(const std::string& path) {
  return path.front() == '/' && (path + "/").find("/../") == std::string::npos;
}

void plan_and_look(const spec::RuntimeConfig& config, const runtime::Caller& caller) {
  const runtime::NamespacePlan namespaces = runtime::plan_namespaces(config, caller);
  if (namespaces.new_user && (namespaces.maps.uids.empty() || namespaces.maps.gids.empty()))
    fuzz::finding("a new user namespace without a map", "");
  const runtime::MountPlan mounts = runtime::plan_mounts(config, "/bundle");
  if (mounts.ops.size() != config.mounts.size()) fuzz::finding("a mount was lost", "");
  for (const runtime::MountOp& op : mounts.ops) {
    if (!stays_below_root(op.destination)) fuzz::finding("a mount leads out of the root", op.destination);
    if (op.kind == runtime::MountKind::bind && op.source.front() != '/')
      fuzz::finding("the source of a bind mount is relative", op.source);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  spec::RuntimeConfig config;
  const bool valid = fuzz::accepted([&] {
    config = spec::parse_runtime_config(text);
    spec::validate(config);
  });
  if (!valid) return 0;
  (void)fuzz::accepted([&] { plan_and_look(config, {1000, 1000}); });
  (void)fuzz::accepted([&] { plan_and_look(config, {0, 0}); });
  (void)fuzz::accepted([&] {
    const std::vector<cgroup::LimitWrite> writes = cgroup::plan_limits(config.linux_.resources);
    (void)cgroup::needed_controllers(writes);
    for (const cgroup::LimitWrite& write : writes)
      if (write.file.empty() || write.file.find('/') != std::string::npos)
        fuzz::finding("a limit leads out of its control group", write.file);
  });
  if (config.linux_.seccomp) (void)fuzz::accepted([&] { (void)runtime::describe_seccomp(*config.linux_.seccomp); });
  return 0;
}
