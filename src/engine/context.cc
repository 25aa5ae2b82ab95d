#include "engine/context.h"

#include <unistd.h>

#include "engine/host.h"
#include "engine/recover.h"

namespace kelp::engine {

Context::Context() = default;
Context::Context(Context&& other) noexcept = default;
Context& Context::operator=(Context&& other) noexcept = default;
Context::~Context() = default;

const HostFacts& Context::host() const {
  if (!host_) host_ = std::make_unique<HostFacts>(global);
  return *host_;
}

Context make_context(const GlobalOptions& options) {
  Context context;
  context.global = options;
  context.layout = store::resolve(options.root, options.run_root);
  if (store::check_version(context.layout) && ::access(context.layout.run.c_str(), F_OK) < 0)
    recover_run_directory(context.layout);  // a new login, or somebody has cleaned up
  return context;
}

}  // namespace kelp::engine
