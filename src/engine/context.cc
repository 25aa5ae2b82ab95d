#include "engine/context.h"

#include "engine/host.h"

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
  store::check_version(context.layout);
  return context;
}

}  // namespace kelp::engine
