#include "engine/commit.h"

#include <memory>

#include "base/error.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/container_select.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "spec/image_name.h"
#include "sys/lock.h"

namespace kelp::cli {
namespace {

struct CommitCommand {
  engine::CommitOptions commit;
  std::string iidfile, config;
  bool quiet = false;
};

int commit(Invocation& invocation, CommitCommand& values) {
  const auto record = take_container(invocation, false);
  if (!invocation.arguments.empty()) {
    values.commit.name = invocation.arguments.front();
    spec::parse_local_name(values.commit.name);  // before anything is packed
  }
  if (!values.config.empty()) {
    const auto text = sys::read_small_file(values.config, 4U << 20U);
    if (!text) throw_usage("--config: there is no file {}", quoted(values.config));
    values.commit.config = *text;
  }
  ProgressView progress(values.quiet);
  const std::string id = engine::commit_container(invocation.context, record, values.commit, progress.callback());
  progress.finish();
  if (!values.iidfile.empty()) sys::replace_file(values.iidfile, id, 0644);
  print_line(id);
  return 0;
}

}  // namespace

Action define_commit(OptionSet& options) {
  auto values = std::make_shared<CommitCommand>();
  options.arguments("CONTAINER [NAME]", 1, 2, Complete::container);
  options.list("change,c", values->commit.changes, "INSTRUCTION",
               "instruction of a Containerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR, ...");
  options.text("config", values->config, "FILE", "JSON with members of the image's configuration: Cmd, Env, User, ...")
      .complete(Complete::file);
  options.text("author,a", values->commit.author, "NAME", "author of the image");
  options.text("message,m", values->commit.message, "TEXT", "comment in the history");
  options.text("format,f", values->commit.format, "FORMAT", "shape of the image")
      .one_of({"oci", "docker"})
      .shows("oci");
  options.flag("pause,p", values->commit.pause, "freeze the container meanwhile");
  options.flag("squash,s", values->commit.squash, "one layer with everything");
  options.flag("include-volumes,S", values->commit.volumes, "declare the container's volumes in the image");
  options.text("iidfile", values->iidfile, "FILE", "write the ID of the image to a file").complete(Complete::file);
  options.flag("quiet,q", values->quiet, "do not show the progress");
  return [values](Invocation& invocation) { return commit(invocation, *values); };
}

}  // namespace kelp::cli
