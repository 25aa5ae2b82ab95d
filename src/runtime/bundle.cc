#include "runtime/bundle.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "spec/validate.h"
#include "sys/lock.h"
#include "sys/subid.h"

namespace kelp::runtime {
namespace {

std::string absolute(const std::string& path) {
  const std::unique_ptr<char, decltype(&::free)> resolved(::realpath(path.c_str(), nullptr), ::free);
  if (!resolved) throw_errno("open bundle {}", path);
  return resolved.get();
}

}  // namespace

void add_user_namespace(spec::RuntimeConfig& config) {
  sys::SingleIdReason reason;
  const sys::IdMaps maps = sys::default_maps(&reason);
  if (!reason.text.empty()) log::debug("the container gets a single id: {}", reason.text);
  config.linux_.namespaces.push_back({"user", ""});
  config.linux_.uid_mappings = maps.uids;
  config.linux_.gid_mappings = maps.gids;
}

Bundle load_bundle(const std::string& dir, const std::string& config_name, bool rootless) {
  Bundle bundle;
  bundle.dir = absolute(dir);
  const std::string path = starts_with(config_name, "/") ? config_name : bundle.dir + "/" + config_name;
  std::optional<std::string> text = sys::read_small_file(path, spec::kMaxConfigBytes);
  if (!text)
    throw Error(fmt::format("bundle {} has no {}", bundle.dir, config_name)).with_hint("kelp-oci spec makes one");
  bundle.config_text = std::move(*text);
  try {
    bundle.config = spec::parse_runtime_config(bundle.config_text);
    if (!bundle.config.root) throw_error("root: is missing");
    if (rootless && ::geteuid() != 0 && bundle.config.find_namespace("user") == nullptr)
      add_user_namespace(bundle.config);
    spec::validate(bundle.config);
  } catch (Error& error) {
    error.add_context(path);
    throw;
  }
  const std::string& root = bundle.config.root->path;
  bundle.rootfs = starts_with(root, "/") ? root : bundle.dir + "/" + root;
  return bundle;
}

}  // namespace kelp::runtime
