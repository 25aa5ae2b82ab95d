#include <memory>

#include "base/error.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/output.h"
#include "engine/copy.h"
#include "store/containers.h"

namespace kelp::cli {
namespace {

struct CpCommand {
  bool archive = true, overwrite = false;
};

struct Side {
  std::optional<store::ContainerRecord> container;
  std::string path;
};

/// CONTAINER:PATH, or a path of the host. A word that begins with '.' or '/' is a path, whatever it holds.
Side parse_side(Invocation& invocation, const std::string& word) {
  const size_t colon = word.find(':');
  if (colon == std::string::npos || colon == 0 || word[0] == '.' || word[0] == '/') return {std::nullopt, word};
  Side side;
  side.container = store::get(invocation.context.layout, word.substr(0, colon));
  side.path = word.substr(colon + 1);
  if (side.path.empty()) throw_usage("{}: the path inside the container is missing", quoted(word));
  return side;
}

int cp(Invocation& invocation, const CpCommand& values) {
  Side from = parse_side(invocation, invocation.arguments[0]), to = parse_side(invocation, invocation.arguments[1]);
  if (!from.container && !to.container) {
    throw UsageError("one of the two places must be in a container").with_hint("write it as CONTAINER:PATH");
  }
  if (to.path == "-" && !to.container && stdout_is_terminal()) {
    throw_usage("a tar archive is not written to a terminal; redirect standard output");
  }
  engine::CopyRequest request;
  request.from = std::move(from.container);
  request.to = std::move(to.container);
  request.source = std::move(from.path);
  request.target = std::move(to.path);
  request.archive = values.archive;
  request.overwrite = values.overwrite;
  engine::copy_files(invocation.context, request);
  return 0;
}

}  // namespace

Action define_cp(OptionSet& options) {
  auto values = std::make_shared<CpCommand>();
  options.arguments("[CONTAINER:]SOURCE [CONTAINER:]TARGET", 2, 2, Complete::container);
  options.flag("archive,a", values->archive, "give what is copied into a container to its user").shows("true");
  options.flag("overwrite", values->overwrite, "let a directory replace a file and the other way round");
  options.describe("SOURCE or TARGET may be - for a tar archive on standard input or output.",
                   "kelp cp web:/etc/nginx/nginx.conf .\nkelp cp ./page.html web:/usr/share/nginx/html/");
  return [values](Invocation& invocation) { return cp(invocation, *values); };
}

}  // namespace kelp::cli
